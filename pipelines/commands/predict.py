"""`marco predict`: scores for folders or files of drop images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands import inputs


def predict(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Images (JPEG, PNG, TIFF, BMP) and folders of them.")
    ],
    output: Annotated[Path, typer.Option(help="CSV to write; unreadable files go beside it, into *.errors.csv.")],
    model: Annotated[
        str | None,
        typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 8,
) -> None:
    """Score drop images into a CSV: a row an image, a column a class.

    Folders are searched with their subfolders. Plate and well are filled in where the file name tells them. The exit
    status is 1 if some file could not be scored; the others are scored all the same.

    Example: marco predict --model models/released --output scores.csv plates/03c3
    """
    from pipelines.prediction import predict as predict_files
    from pipelines.result_tables import errors_path

    files = inputs.images(paths)
    found = inputs.model_directory(model, "scoring with")
    from marco_model.load import load

    outcome = predict_files(load(found), files, output, batch_size)
    counts = ", ".join(f"{count} {name}" for name, count in outcome.by_class.items())
    typer.echo(f"{output}: {sum(outcome.by_class.values())} images scored: {counts}")
    if outcome.failed:
        typer.echo(f"{outcome.failed} of {len(files)} files could not be scored, see {errors_path(output)}", err=True)
        raise typer.Exit(1)
