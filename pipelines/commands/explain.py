"""`marco explain`: which pixels of drop images a score hangs on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from pipelines.commands import inputs


def explain(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Images (JPEG, PNG, TIFF, BMP) and folders of them.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for an overlay an image and explained.csv.")],
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
    ] = None,
    class_name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--class", help="The class to explain. Without it: of each image the predicted one."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Noisy copies of an image; time grows with them.")] = 50,
    noise: Annotated[
        float, typer.Option(min=0, max=1, help="Standard deviation of the noise, a share of the image's range.")
    ] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1, help="Noisy copies at once.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise; the same seed gives the same picture.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="Write attributions too: .npy, float32 [size, size].")] = False,
) -> None:
    """Show which pixels a score hangs on (SmoothGrad): a heat map over the grey image, one PNG an image.

    explained.csv says which class each picture explains and its score. The exit status is 1 if some file could not be
    explained; the others are all the same. What the maps mean and don't mean is in docs/explain.md.

    Example: marco explain --model models/released --output explained --class Crystals plates/03c3
    """
    from pipelines.explanation import TABLE, Options
    from pipelines.explanation import explain as explain_files
    from pipelines.result_tables import errors_path

    files = inputs.images(paths)
    found = inputs.model_directory(model, "explaining")
    from marco_model.load import load

    options = Options(samples, noise, batch_size, seed, class_name, raw)
    failed = explain_files(load(found), files, output, options)
    typer.echo(f"{output}: {len(files) - failed} overlays, listed in {output / TABLE}")
    if failed:
        typer.echo(
            f"{failed} of {len(files)} files could not be explained, see {errors_path(output / TABLE)}", err=True
        )
        raise typer.Exit(1)
