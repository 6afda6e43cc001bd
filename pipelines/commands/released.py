"""`marco released`: the classifier published with the paper, as a model of this project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def released(
    output: Annotated[Path, typer.Option(help="New folder for the SavedModel.")],
) -> None:
    """Write the published classifier (Bruno et al. 2018) as a model with named scores in a fixed order.

    Example: marco released --output models/released
    """
    from marco_model.released import export_released

    export_released(output)
    typer.echo(f"{output}: the published classifier; try: marco predict --model {output} --output scores.csv IMAGES")
