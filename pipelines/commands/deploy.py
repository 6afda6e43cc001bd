"""`marco deploy`: a published model on an endpoint of Vertex AI, its canary, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from pipelines.commands import vertex_options as options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from components.endpoint_pusher.golden import Image
    from pipelines.configuration import Deploying

Golden = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Folder or gs:// URI of golden images; by default the preset's, else drawn ones."),
]


def push(
    model: Annotated[str, typer.Option(help="gs:// URI of a published model, or of a folder of versions.")],
    endpoint: options.Name = None,
    traffic: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, max=100, help="Stay at this per cent; by default the preset's steps, up to all."),
    ] = None,
    golden: Golden = None,
    project: options.Project = None,
    location: options.Location = None,
    preset: options.Preset = None,
    change: options.Change = None,
    api: options.Address = None,
) -> None:
    """Deploy a published model: a new version, checked by golden images, that takes over the endpoint step by step.

    What served before serves until the new version has answered as it should, and again where it fails. The same
    command goes on where it was cut off, and changes nothing where all is done.

    Example: marco deploy push --model gs://BUCKET/models --endpoint marco --project PROJECT --location europe-west4
    --traffic 10
    """
    found = options.settings(
        preset, project, location, api, change, name=endpoint, golden=golden, traffic=(traffic,) if traffic else None
    )
    from components.endpoint_pusher import pushing
    from pipelines.deployments import table

    service = options.connect(found)
    done = pushing.push(service, found.endpoint, _model(found), model, _images(found))
    table.show(service, done.endpoint)


def promote(
    endpoint: options.Name = None,
    golden: Golden = None,
    project: options.Project = None,
    location: options.Location = None,
    preset: options.Preset = None,
    change: options.Change = None,
    api: options.Address = None,
) -> None:
    """Give the version on trial all the traffic, in the steps that are left, and take the one before away.

    Example: marco deploy promote --endpoint marco --project PROJECT --location europe-west4
    """
    found = options.settings(preset, project, location, api, change, name=endpoint, golden=golden)
    from components.endpoint_pusher import pushing, rollout
    from pipelines.deployments import table, trial

    service = options.connect(found)
    version = trial.version(service, found.endpoint)
    with pushing.fetched(version.uri) as (_, folder):
        answers = pushing.expected(folder, _images(found)())
    table.show(service, rollout.promote(service, found.endpoint, version, answers))


def rollback(
    endpoint: options.Name = None,
    to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The version that is to serve, one that once did; by default the one before."),
    ] = None,
    project: options.Project = None,
    location: options.Location = None,
    preset: options.Preset = None,
    change: options.Change = None,
    api: options.Address = None,
) -> None:
    """Take the version on trial back or, where there is none, have the version before serve again.

    The same command again goes no further back; name a version with --to for that.

    Example: marco deploy rollback --endpoint marco --project PROJECT --location europe-west4
    """
    found = options.settings(preset, project, location, api, change, name=endpoint)
    from components.endpoint_pusher import rollout
    from pipelines.deployments import table

    service = options.connect(found)
    state, done = rollout.rollback(service, found.endpoint, to)
    typer.echo(f"{found.endpoint.name}: {done}")
    table.show(service, state)


def status(
    endpoint: options.Name = None,
    project: options.Project = None,
    location: options.Location = None,
    preset: options.Preset = None,
    change: options.Change = None,
    api: options.Address = None,
) -> None:
    """Show what an endpoint serves: versions, their traffic, since when, and what they are.

    Example: marco deploy status --endpoint marco --project PROJECT --location europe-west4
    """
    found = options.settings(preset, project, location, api, change, name=endpoint)
    from components.endpoint_pusher import endpoints, names
    from marco_model.errors import InputError
    from pipelines.deployments import table

    service = options.connect(found)
    state = endpoints.find(service, found.endpoint.name)
    if state is None:
        raise InputError(f"there is no endpoint {found.endpoint.name!r} in {found.vertex.project}; push a model to it")
    table.show(service, state)
    check = endpoints.find(service, found.endpoint.name + names.CHECK)
    if check and check.deployed:
        told = ", ".join(f"version {one.version}" for one in check.deployed)
        typer.echo(f"{check.display_name} still has {told}, which costs; the next push takes it away")


def _model(found: Deploying) -> str:
    return found.endpoint.model or found.model_name


def _images(found: Deploying) -> Callable[[], Sequence[Image]]:
    from components.endpoint_pusher import golden_images

    if found.endpoint.golden:
        return lambda: golden_images.in_place(found.endpoint.golden)
    return lambda: golden_images.drawn(found.endpoint.golden_images)
