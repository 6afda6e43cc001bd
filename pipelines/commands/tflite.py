"""`marco tflite`: a classifier as a TensorFlow Lite model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional

import typer

from pipelines.commands import inputs


def tflite(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Images on which both models must name the same class.")
    ],
    output: Annotated[Path, typer.Option(help="File to write, such as model.tflite.")],
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
    ] = None,
) -> None:
    """Convert a classifier to TensorFlow Lite, and check it on images of yours: each must get the same class.

    What the file takes and gives is in docs/model.md. A run does the same by itself with --set export.tflite=true.

    Example: marco tflite --model models/released --output released.tflite plates/03c3
    """
    from marco_data.image_files import encoded_image
    from marco_data.progress import progress
    from marco_model.errors import InputError

    files = inputs.images(paths)
    found = inputs.model_directory(model, "converting")
    from marco_model.load import load
    from marco_model.tflite import checked

    def encoded() -> Iterator[bytes]:
        with progress("checking", len(files)) as advance:
            for path in files:
                try:
                    yield encoded_image(path)
                except InputError as error:
                    raise InputError(f"{path} {error}; leave it out") from None
                advance(1)

    converted, agreement = checked(load(found), encoded())
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f".{output.name}.partial")
    aside.write_bytes(converted)
    aside.replace(output)
    typer.echo(
        f"{output}: {len(converted) / 1e6:.1f} MB, the same class on all {agreement.images} images, "
        f"scores within {agreement.largest_difference:.1g}"
    )
