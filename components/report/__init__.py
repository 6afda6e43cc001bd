"""The report of a run: one page for a crystallographer and an engineer, every number of it in `report.json`.

`numbers` puts together what `confusion`, `roc`, `slices`, `reliability`, `thresholds` and `disagreements` compute from
the Evaluator's table; `figures` and `pictures` draw, `page` makes the HTML, `write` the files; `paper` holds what Bruno
et al. 2018 report.
"""
