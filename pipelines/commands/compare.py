"""`marco compare`: runs and versions side by side, slice by slice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from pipelines.commands.models import Name, Tracking


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Two or more of: a run's folder, an MLflow run id, a version, champion, challenger."),
    ],
    tracking: Tracking = "runs/local",
    name: Name = "marco",
    recall_class: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The class whose recall is compared beside accuracy; Crystals where there is such a class."),
    ] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    csv: Annotated[Optional[Path], typer.Option(help="A CSV to write, a line a slice and run.")] = None,  # noqa: UP045
    json: Annotated[Optional[Path], typer.Option(help="The same as JSON.")] = None,  # noqa: UP045
) -> None:
    """Compare runs slice by slice: accuracy, recall, and the differences to the first with intervals.

    Where two runs predicted the same images, they are compared image by image, which finds much smaller differences.

    Example: marco compare runs/local runs/other --csv comparison.csv
    """
    from rich.console import Console

    from marco_model.errors import InputError
    from pipelines import judged_runs, run_comparison

    if len(runs) < 2:
        raise InputError(f"{', '.join(runs)} alone cannot be compared; give two runs or more")
    found = [judged_runs.find(run, tracking, name) for run in runs]
    rows = run_comparison.compare(found, recall_class, confidence)
    console = Console(markup=False, emoji=False)
    for metric in dict.fromkeys(row.metric for row in rows):
        console.print(run_comparison.table(rows, metric))
    console.print("\n".join(run_comparison.said(found, rows, confidence)), soft_wrap=True, highlight=False)
    if csv:
        run_comparison.write_csv(rows, csv)
    if json:
        run_comparison.write_json(rows, confidence, json)
