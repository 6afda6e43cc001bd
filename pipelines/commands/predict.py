"""`marco predict`: scores for folders or files of drop images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Images (JPEG, PNG, TIFF, BMP) and folders of them.")
    ],
    output: Annotated[Path, typer.Option(help="CSV to write; unreadable files go beside it, into *.errors.csv.")],
    model: Annotated[
        Path | None,
        typer.Option(help="A model's folder. Without it: the published classifier, if its package is installed."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images scored at once.")] = 8,
) -> None:
    """Score drop images into a CSV: a row an image, a column a class.

    Folders are searched with their subfolders. Plate and well are filled in where the file name tells them. The exit
    status is 1 if some file could not be scored; the others are scored all the same.

    Example: marco predict --model models/released --output scores.csv plates/03c3
    """
    from marco_data.image_files import ENDINGS, find_images
    from marco_model.errors import InputError
    from marco_model.model_directory import saved_model_directory
    from pipelines.prediction import predict as predict_files
    from pipelines.result_tables import errors_path

    files = find_images(paths)
    if not files:
        raise InputError(f"no images in {', '.join(map(str, paths))}; endings looked for: {' '.join(ENDINGS)}")
    if model is None:
        from marco_model.released import published_directory

        model = published_directory()
        typer.echo("no --model given: scoring with the classifier published in 2018", err=True)
    found = saved_model_directory(model)
    from marco_model.load import load

    outcome = predict_files(load(found), files, output, batch_size)
    counts = ", ".join(f"{count} {name}" for name, count in outcome.by_class.items())
    typer.echo(f"{output}: {sum(outcome.by_class.values())} images scored: {counts}")
    if outcome.failed:
        typer.echo(f"{outcome.failed} of {len(files)} files could not be scored, see {errors_path(output)}", err=True)
        raise typer.Exit(1)
