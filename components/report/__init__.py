"""The report of a run: one page for a crystallographer and an engineer, every number of it in `report.json`."""
