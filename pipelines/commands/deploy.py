"""`marco deploy`: a published model on an endpoint of Vertex AI, its canary, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.vertex import endpoints
from components.vertex.api import Api
from components.vertex.endpoints import Deployed, State, Version
from components.vertex.options import Endpoint
from marco_model.errors import InputError

if TYPE_CHECKING:
    from components.vertex.api import Api
    from components.vertex.options import Vertex
    from pipelines.configuration import Deploying

Project = Annotated[str | None, typer.Option(help="Project of Google Cloud; by default the preset's.")]
Location = Annotated[str | None, typer.Option(help="Region, such as europe-west4; by default the preset's.")]
Name = Annotated[
    str | None,
    typer.Option("--endpoint", help="The endpoint's display name; by default the preset's."),
]
Preset = Annotated[
    str | None,
    typer.Option(help="A preset's name or .yaml file, whose sections vertex and endpoint are taken."),
]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value, such as endpoint.keep_previous=true. May be repeated."),
]
Address = Annotated[
    str | None,
    typer.Option("--api", help="Another address of Vertex AI, such as a Private Service Connect endpoint's."),
]


def settings(
    preset: str | None,
    project: str | None,
    location: str | None,
    api: str | None,
    change: list[str] | None,
    **endpoint: Any,
) -> Deploying:
    """Returns the sections `vertex` and `endpoint` of a preset with what the command line gives."""
    from pipelines.configuration import load_deploying

    vertex = {"project": project, "location": location, "api": api}
    return load_deploying(preset, {"vertex": vertex, "endpoint": endpoint}, change or [])


def connect(found: Deploying) -> Api:
    """Returns the way to Vertex AI."""
    from components.vertex.api import Api

    return Api(found.vertex)


def place(project: str | None, location: str | None, api: str | None) -> Vertex:
    """Returns where in Google Cloud; raises `InputError` where that is not said."""
    from components.vertex.options import Vertex
    from marco_model.errors import InputError

    if not (project and location):
        raise InputError(f"--project is {project} and --location {location}; Vertex AI needs both")
    try:
        return Vertex(project, location, api=api or "")
    except ValueError as error:
        raise InputError(str(error)) from error


def only_vertex(**given: str | None) -> None:
    """Raises `InputError` for options that mean something to Kubeflow Pipelines alone."""
    from marco_model.errors import InputError

    if named := [f"--{name}" for name, value in given.items() if value is not None]:
        raise InputError(f"{', '.join(named)}: Vertex AI has none; leave it out, or give --target kubeflow")


COLUMNS = ("version", "traffic", "role", "deployed", "fingerprint", "model", "MLflow run", "machine")


def rows(state: State, known: dict[tuple[str, str], endpoints.Version]) -> list[tuple[str, ...]]:
    """Returns a row of `COLUMNS` for each deployed model, that with most traffic first.

    `known`: versions by the model's id and the version's number.
    """
    found: list[tuple[str, ...]] = []
    for one in sorted(state.deployed, key=lambda one: (-one.share, one.created)):
        version = known.get((one.model, one.version))
        told = (version.fingerprint[:12], version.uri, version.run) if version else ("", "", "")
        found.append((one.version, f"{one.share} %", _role(state, one), one.created, *told, str(one.machine)))
    return found


def _role(state: State, one: Deployed) -> str:
    if one == state.serving:
        return "serves"
    if one == state.canary:
        return "on trial"
    return "the way back" if one.version == state.labels.get(endpoints.PREVIOUS) else ""


def show_endpoint(api: Api, state: State) -> None:
    """Prints the endpoint's deployed models, with what the registry knows of their versions."""
    from rich.console import Console
    from rich.table import Table

    known = {
        (model, one.number): one
        for model in sorted({one.model for one in state.deployed})
        for one in endpoints.list_versions(api, f"{api.place.parent}/models/{model}")
    }
    drawn = Table(title=f"Endpoint {state.display_name} in {api.place.project}, {api.place.location}")
    for column in COLUMNS:
        drawn.add_column(column, overflow="fold")
    for row in rows(state, known):
        drawn.add_row(*row)
    Console(width=None if Console().is_terminal else 200).print(drawn)


def version_on_trial(api: Api, options: Endpoint) -> Version:
    """Returns the version on trial or, where there is none, the one that serves; of it nothing is left to be done.

    Raises `InputError` where there is neither, or the registry does not know it any more.
    """
    state = endpoints.find_endpoint(api, options.name)
    one = state and (state.canary or state.serving)
    if not one:
        raise InputError(f"endpoint {options.name} has no version on trial; marco deploy push one with --traffic 10")
    known = endpoints.list_versions(api, f"{api.place.parent}/models/{one.model}")
    found = [other for other in known if other.number == one.version]
    if not found:
        raise InputError(f"version {one.version} is not in the registry any more; marco deploy push another")
    return found[0]


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from components.vertex.golden import Image
    from pipelines.configuration import Deploying

Golden = Annotated[
    str | None,
    typer.Option(help="Folder or gs:// URI of golden images; by default the preset's, else drawn ones."),
]


def push(
    model: Annotated[str, typer.Option(help="gs:// URI of a published model, or of a folder of versions.")],
    endpoint: Name = None,
    traffic: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Stay at this per cent; by default the preset's steps, up to all."),
    ] = None,
    golden: Golden = None,
    project: Project = None,
    location: Location = None,
    preset: Preset = None,
    change: Change = None,
    api: Address = None,
) -> None:
    """Deploy a published model: a new version, checked by golden images, that takes over the endpoint step by step.

    What served before serves until the new version has answered as it should, and again where it fails. The same
    command goes on where it was cut off, and changes nothing where all is done.

    Example: marco deploy push --model gs://BUCKET/models --endpoint marco --project PROJECT --location europe-west4
    --traffic 10
    """
    found = settings(
        preset, project, location, api, change, name=endpoint, golden=golden, traffic=(traffic,) if traffic else None
    )
    from components.vertex import rollout

    service = connect(found)
    done = rollout.push_model(service, found.endpoint, _model(found), model, _images(found))
    show_endpoint(service, done.endpoint)


def promote(
    endpoint: Name = None,
    golden: Golden = None,
    project: Project = None,
    location: Location = None,
    preset: Preset = None,
    change: Change = None,
    api: Address = None,
) -> None:
    """Give the version on trial all the traffic, in the steps that are left, and take the one before away.

    Example: marco deploy promote --endpoint marco --project PROJECT --location europe-west4
    """
    found = settings(preset, project, location, api, change, name=endpoint, golden=golden)
    from components.vertex import rollout

    service = connect(found)
    version = version_on_trial(service, found.endpoint)
    with rollout.fetched(version.uri) as (_, folder):
        answers = rollout.expected(folder, _images(found)())
    show_endpoint(service, rollout.promote(service, found.endpoint, version, answers))


def rollback(
    endpoint: Name = None,
    to: Annotated[
        str | None,
        typer.Option(help="The version that is to serve, one that once did; by default the one before."),
    ] = None,
    project: Project = None,
    location: Location = None,
    preset: Preset = None,
    change: Change = None,
    api: Address = None,
) -> None:
    """Take the version on trial back or, where there is none, have the version before serve again.

    The same command again goes no further back; name a version with --to for that.

    Example: marco deploy rollback --endpoint marco --project PROJECT --location europe-west4
    """
    found = settings(preset, project, location, api, change, name=endpoint)
    from components.vertex import rollout

    service = connect(found)
    state, done = rollout.rollback(service, found.endpoint, to)
    typer.echo(f"{found.endpoint.name}: {done}")
    show_endpoint(service, state)


def status(
    endpoint: Name = None,
    project: Project = None,
    location: Location = None,
    preset: Preset = None,
    change: Change = None,
    api: Address = None,
) -> None:
    """Show what an endpoint serves: versions, their traffic, since when, and what they are.

    Example: marco deploy status --endpoint marco --project PROJECT --location europe-west4
    """
    found = settings(preset, project, location, api, change, name=endpoint)
    from components.vertex import endpoints
    from marco_model.errors import InputError

    service = connect(found)
    state = endpoints.find_endpoint(service, found.endpoint.name)
    if state is None:
        raise InputError(f"there is no endpoint {found.endpoint.name!r} in {found.vertex.project}; push a model to it")
    show_endpoint(service, state)
    check = endpoints.find_endpoint(service, found.endpoint.name + endpoints.CHECK)
    if check and check.deployed:
        told = ", ".join(f"version {one.version}" for one in check.deployed)
        typer.echo(f"{check.display_name} still has {told}, which costs; the next push takes it away")


def _model(found: Deploying) -> str:
    return found.endpoint.model or found.model_name


def _images(found: Deploying) -> Callable[[], Sequence[Image]]:
    from components.vertex import golden

    if found.endpoint.golden:
        return lambda: golden.in_place(found.endpoint.golden)
    return lambda: golden.drawn(found.endpoint.golden_images)


def batch(
    source: Annotated[str, typer.Option("--input", help="gs:// URI of a folder of images.")],
    output: Annotated[str, typer.Option(help="gs:// URI below which Vertex AI reads and writes.")],
    scores: Annotated[Path, typer.Option(help="CSV to write here, as marco predict does.")] = Path("scores.csv"),
    version: Annotated[
        str | None,
        typer.Option(help="The model's version; by default the one that was promoted last."),
    ] = None,
    project: Project = None,
    location: Location = None,
    preset: Preset = None,
    change: Change = None,
    api: Address = None,
) -> None:
    """Score the images of a bucket by a batch prediction on Vertex AI, without an endpoint.

    The same command again takes the results that are there. The exit status is 1 if some image has no scores.

    Example: marco deploy batch --input gs://BUCKET/plates --output gs://BUCKET/scores --project PROJECT
    --location europe-west4
    """
    found = settings(preset, project, location, api, change, **({} if preset else {"name": "batch"}))
    from components.vertex import batch, endpoints
    from marco_model.errors import InputError
    from marco_scoring.prediction import errors_path

    service = connect(found)
    name = found.endpoint.model or found.model_name
    model = endpoints.find_model(service, name)
    known = endpoints.list_versions(service, model) if model else []
    chosen = [one for one in known if (one.number == version if version else "default" in one.aliases)]
    if not chosen:
        told = ", ".join(one.number for one in known) or "none"
        raise InputError(f"there is no version {version or 'that is promoted'} of {name}; the registry has {told}")
    images = batch.images(source)
    note = batch.mark(chosen[0], images)
    place = f"{output.rstrip('/')}/{note[:12]}"
    predicted, left_out = batch.predictions(service, found.endpoint, chosen[0], images, place, note)
    outcome = batch.table(images, predicted, left_out, f"{name}-{chosen[0].number}", scores)
    counts = ", ".join(f"{count} {one}" for one, count in outcome.by_class.items()) or "none"
    typer.echo(f"{scores}: {sum(outcome.by_class.values())} images scored: {counts}")
    if outcome.failed:
        typer.echo(f"{outcome.failed} of {len(images)} images have no scores, see {errors_path(scores)}", err=True)
        raise typer.Exit(1)
