"""`marco data synthesize`: a set of synthetic drops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marco_model.errors import InputError


def synthesize(
    output: Annotated[Path, typer.Option(help="New folder for the set.")],
    images: Annotated[int, typer.Option(min=1, help="How many images to draw.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives another set; the same seed the same bytes.")] = 0,
    eval_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the images in the test shards.")] = 0.2,
    size: Annotated[str, typer.Option(help="`full`, or the shorter side in pixels.")] = "full",
    label_noise: Annotated[float, typer.Option(min=0, max=1, help="Share of images filed under a wrong class.")] = 0.0,
    shard_images: Annotated[int, typer.Option(min=1, help="Images a shard at most.")] = 1024,
    processes: Annotated[int, typer.Option(min=1, help="How many processes draw.")] = 2,
) -> None:
    """Draw synthetic drops of all four classes, as five institutions' imagers would see them, in the MARCO contract.

    Image number i depends on the seed and i alone. A folder that already holds exactly this set is left as it is.

    Example: marco data synthesize --output runs/drops --images 400 --seed 0
    """
    from marco_data.synthetic import Settings
    from marco_data.synthetic import synthesize as write

    if size != "full" and not size.isdecimal():
        raise InputError(f"--size is {size!r}; give `full` or the shorter side in pixels, such as 320")
    settings = Settings(
        seed=seed,
        eval_share=eval_share,
        shorter_side=0 if size == "full" else int(size),
        label_noise=label_noise,
    )
    manifest = write(output, images, settings, shard_images=shard_images, processes=processes)
    for group, counts in manifest["counts"].items():
        typer.echo(f"{group}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    typer.echo(f"{manifest['images']} images in {output}")
