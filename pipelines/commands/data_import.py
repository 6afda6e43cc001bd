"""`marco data import`: own images as MARCO shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marco_model.errors import InputError


def import_(
    output: Annotated[Path, typer.Option(help="New folder for the shards.")],
    folder: Annotated[
        Path | None, typer.Argument(help="A folder a class below it; with --csv, the folder of the files listed.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Labels: filename,label or terf's header; paths are relative to it.")
    ] = None,
    institution: Annotated[str, typer.Option(help="Where the images come from; metrics are given by it.")] = "",
    eval_share: Annotated[float, typer.Option(help="Share of plates, or images, held out as test shards.")] = 0.2,
    shard_images: Annotated[int, typer.Option(min=1, help="Images a shard at most.")] = 1024,
    raw_labels: Annotated[
        bool,
        typer.Option("--raw-labels", help="Labels are your own, of any names; a label scheme makes classes of them."),
    ] = False,
) -> None:
    """Make MARCO shards of JPEG, PNG, TIFF and BMP images with labels from a CSV, or from a folder a class.

    Classes are Clear, Crystals, Other and Precipitate, unless --raw-labels takes labels of your own (docs/labels.md).
    Files that cannot be read are listed in import.errors.csv, the
    rest is imported, and the exit status is 1.

    Example: marco data import --output drops --csv labels.csv --institution CSIRO
    """
    from marco_data.importing import ERRORS_FILE, import_images
    from marco_data.label_table import from_csv, from_folder

    if csv is None and folder is not None and folder.suffix.lower() == ".csv":
        csv, folder = folder, None
    if csv is not None:
        table = from_csv(csv, folder, institution, raw_labels)
    elif folder is not None:
        table = from_folder(folder, institution, raw_labels)
    else:
        raise InputError("nothing to import; give a folder that has a folder for each class, or --csv labels.csv")
    done = import_images(table, output, eval_share=eval_share, shard_images=shard_images)
    counts = ", ".join(f"{split} {count}" for split, count in done.written.items())
    typer.echo(f"{sum(done.written.values())} images in {output} ({counts})")
    if not done.plates_kept:
        typer.echo("the images are of too few plates to hold out whole ones: drawn image by image", err=True)
    if done.errors:
        for path, reason in done.errors[:5]:
            typer.echo(f"left out: {path}: {reason}", err=True)
        typer.echo(f"{len(done.errors)} left out in all, listed in {output / ERRORS_FILE}", err=True)
        raise typer.Exit(1)
