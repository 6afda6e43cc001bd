"""The Evaluator: the served model judged by TFMA, overall, by institution, by imager and by both.

`predictions` runs the model over the examples, `metrics` is what TFMA computes, `eval_config` what it checks. Others
read `results`, the scores in `prediction_table`, and the `images` behind them.
"""
