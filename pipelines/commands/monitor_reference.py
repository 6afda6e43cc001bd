"""`marco monitor reference`: what images look like while all is well."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands import inputs, monitor_options


def reference(
    paths: Annotated[
        list[str], typer.Argument(metavar="DATA…", help="Shards or images: files, folders, globs, local or gs://.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the reference; an older one there is replaced.")],
    model: monitor_options.Model = None,
    sample: Annotated[int, typer.Option(min=50, help="Images of each imager at most.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draw of the sample.")] = 0,
    imager: monitor_options.Imagers = None,
    institution: monitor_options.Institution = "",
    beam: monitor_options.Beam = None,
    staging: monitor_options.Staging = "",
) -> None:
    """Measure images that the model was judged on, to compare later ones with.

    Give the evaluation set, not the training set: of images that it was trained on a model is surer than of any other.
    Each imager needs 50 images, better some hundreds. A reference belongs to its model; a new one needs a new one.

    Example: marco monitor reference --model models/3 --output monitoring/reference checked/examples/Split-eval
    """
    found = inputs.model_directory(model, "measuring with")
    from components.monitoring.images import find
    from components.monitoring.limits import Limits
    from marco_model.errors import InputError

    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; give a folder")
    find(paths)
    from components.monitoring.measure import Sampling
    from components.monitoring.watch import make_reference, model_facts
    from marco_data.files import is_remote

    made = make_reference(
        paths,
        output,
        (model if model and is_remote(model) else str(found), model_facts(found)),
        monitor_options.naming(imager, institution),
        Sampling(images=sample, seed=seed),
        monitor_options.staging(staging, output),
        monitor_options.pipeline(beam),
    )
    least = Limits().least
    for name, seen in made.facts["seen"].items():
        count = made.facts["measured"].get(name, 0)
        typer.echo(f"{name}: {count} images of {seen}")
        if count < least:
            typer.echo(f"warning: {name}: a check needs {least} images of an imager, better some hundreds", err=True)
    if made.facts["failed"]:
        typer.echo(f"could not be measured: {made.facts['failed']}", err=True)
    typer.echo(f"{output}: reference for {made.facts['model']['name']}")
