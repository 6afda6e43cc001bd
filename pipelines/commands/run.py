"""`marco run`: the whole pipeline on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer


def run(
    preset: Annotated[str, typer.Option(help="A preset's name, or a .yaml file of your own.")] = "local",
    output: Annotated[Path, typer.Option(help="Folder of the run: data, steps, models, MLflow, summary.json.")] = Path(
        "runs/local"
    ),
    data: Annotated[Optional[str], typer.Option(help="Folder, glob or gs:// URI of MARCO shards.")] = None,  # noqa: UP045
    overlay: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Labels that experts gave, which `marco relabel merge` wrote; local or gs://."),
    ] = None,
    change: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Change one value of the preset, such as recipe.steps=500. May be repeated."),
    ] = None,
) -> None:
    """Read, check, train, judge and publish: the whole pipeline on this machine.

    A step whose inputs and settings have not changed is reused; a training that was killed goes on from its last
    checkpoint. Exit status 0: the model was blessed and published; 3: it was trained but not blessed.

    Example: marco run --preset finetune --data shards --output runs/mine --set recipe.steps=500
    """
    from rich.console import Console

    from pipelines import configuration, local_runner, summary

    changes = [*(change or []), *([f"data.overlay={json.dumps(overlay)}"] if overlay else [])]
    told = local_runner.run(configuration.load(preset, changes, data), output)
    console = Console()
    console.print(summary.table(told))
    console.print("\n".join(summary.lines(told, output)), soft_wrap=True, highlight=False, markup=False, emoji=False)
    if not told["blessed"]:
        raise typer.Exit(3)
