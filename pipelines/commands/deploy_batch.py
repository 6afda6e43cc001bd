"""`marco deploy batch`: scores for images in a bucket, by a version in Vertex AI's registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from pipelines.commands import vertex_options as options


def batch(
    source: Annotated[str, typer.Option("--input", help="gs:// URI of a folder of images.")],
    output: Annotated[str, typer.Option(help="gs:// URI below which Vertex AI reads and writes.")],
    scores: Annotated[Path, typer.Option(help="CSV to write here, as marco predict does.")] = Path("scores.csv"),
    version: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The model's version; by default the one that was promoted last."),
    ] = None,
    project: options.Project = None,
    location: options.Location = None,
    preset: options.Preset = None,
    change: options.Change = None,
    api: options.Address = None,
) -> None:
    """Score the images of a bucket by a batch prediction on Vertex AI, without an endpoint.

    The same command again takes the results that are there. The exit status is 1 if some image has no scores.

    Example: marco deploy batch --input gs://BUCKET/plates --output gs://BUCKET/scores --project PROJECT
    --location europe-west4
    """
    found = options.settings(preset, project, location, api, change, **({} if preset else {"name": "batch"}))
    from components.endpoint_pusher import versions
    from marco_model.errors import InputError
    from pipelines.deployments import batch as batches
    from pipelines.result_tables import errors_path

    service = options.connect(found)
    name = found.endpoint.model or found.model_name
    model = versions.find_model(service, name)
    known = versions.listed(service, model) if model else []
    chosen = [one for one in known if (one.number == version if version else "default" in one.aliases)]
    if not chosen:
        told = ", ".join(one.number for one in known) or "none"
        raise InputError(f"there is no version {version or 'that is promoted'} of {name}; the registry has {told}")
    images = batches.images(source)
    note = batches.mark(chosen[0], images)
    place = f"{output.rstrip('/')}/{note[:12]}"
    predicted, left_out = batches.predictions(service, found.endpoint, chosen[0], images, place, note)
    outcome = batches.table(images, predicted, left_out, f"{name}-{chosen[0].number}", scores)
    counts = ", ".join(f"{count} {one}" for one, count in outcome.by_class.items()) or "none"
    typer.echo(f"{scores}: {sum(outcome.by_class.values())} images scored: {counts}")
    if outcome.failed:
        typer.echo(f"{outcome.failed} of {len(images)} images have no scores, see {errors_path(scores)}", err=True)
        raise typer.Exit(1)
