"""The report of a run: one page for a crystallographer and an engineer, every number of it in `report.json`.

`numbers` computes that content from the Evaluator's table, with the `curves` in it; `plots` draws figures and pictures;
`page` makes the HTML and writes the files.
"""
