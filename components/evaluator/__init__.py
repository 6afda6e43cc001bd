"""The Evaluator: the served model judged by TFMA, overall, by institution and by imager.

`predictions` runs the model over the examples, `metrics` is what TFMA computes, `eval_config` what it checks, `results`
what others read.
"""
