"""The Evaluator: the served model judged overall, by institution, by imager and by both.

`predictions` runs the model over the examples once, `slices` judges its table by `metrics`, and `tfma_files` writes
what TFMA would and has it check the thresholds of `eval_config`. Others read `results`, the scores in
`prediction_table`, and the `images` behind them.
"""
