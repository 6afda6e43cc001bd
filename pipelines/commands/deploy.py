"""`marco deploy`: a published model on an endpoint of Vertex AI, its canary, and the way back."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import console, table

from components.vertex import api, batch, endpoints, golden
from marco_model.errors import InputError
from marco_scoring import score_table
from pipelines import configuration
from pipelines.commands import options

app = typer.Typer()
Name = Annotated[str | None, typer.Option("--endpoint", help="The endpoint's display name; by default the preset's.")]
GoldenImages = Annotated[
    str | None,
    typer.Option("--golden", help="Folder or gs:// URI of golden images; by default the preset's, else drawn ones."),
]


@dataclasses.dataclass(frozen=True)
class DeployOptions(options.VertexOptions):
    """Where the sections `vertex` and `endpoint` come from."""

    preset: Annotated[
        str | None, typer.Option(help="A preset's name or .yaml file that has the sections vertex and endpoint.")
    ] = None
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one value, such as endpoint.keep_previous=true. May be repeated."),
    ] = None

    def connect(self, **endpoint: Any) -> tuple[api.Api, configuration.Deploying]:
        """Returns the client of Vertex AI, and the two sections with the options' values laid over the preset's."""
        vertex = {"project": self.project, "location": self.location, "api": self.api}
        options = {"vertex": vertex, "endpoint": endpoint}
        sections = configuration.load_deploying(self.preset, options, self.change or [])
        return api.Api(sections.vertex), sections


COLUMNS = ("version", "traffic", "role", "deployed", "fingerprint", "model", "MLflow run", "machine")


def show_endpoint(service: api.Api, state: endpoints.State) -> None:
    """Prints the endpoint's deployed models, most traffic first, with their versions in the registry."""
    known = {
        (model, version.number): version
        for model in sorted({deployed.model for deployed in state.deployed})
        for version in endpoints.list_versions(service, f"{service.place.parent}/models/{model}")
    }
    shown = table.Table(title=f"Endpoint {state.display_name} in {service.place.project}, {service.place.location}")
    for column in COLUMNS:
        shown.add_column(column, overflow="fold")
    for model in sorted(state.deployed, key=lambda model: (-model.share, model.created)):
        version = known.get((model.model, model.version))
        origin = (version.fingerprint[:12], version.uri, version.run) if version else ("", "", "")
        role = _role(state, model)
        shown.add_row(model.version, f"{model.share} %", role, model.created, *origin, str(model.machine))
    width = None if console.Console().is_terminal else 200
    options.Terminal(width=width).print(shown)


def _role(state: endpoints.State, model: endpoints.Deployed) -> str:
    if model == state.serving:
        return "serves"
    if model == state.canary:
        return "on trial"
    return "the way back" if model.version == state.labels.get(endpoints.PREVIOUS) else ""


def version_on_trial(service: api.Api, name: str) -> endpoints.Version:
    """Returns the version on trial, or the one that serves if none is on trial.

    Raises `InputError` if there is neither, or if the registry no longer has the version.
    """
    state = endpoints.find_endpoint(service, name)
    deployed = state and (state.canary or state.serving)
    if not deployed:
        raise InputError(f"endpoint {name} has no version on trial; marco deploy push one with --traffic 10")
    known = endpoints.list_versions(service, f"{service.place.parent}/models/{deployed.model}")
    for version in known:
        if version.number == deployed.version:
            return version
    raise InputError(f"version {deployed.version} is not in the registry any more; marco deploy push another")


@app.command()
@options.grouped
def push(
    *,
    model: Annotated[str, typer.Option(help="gs:// URI of a published model, or of a folder of versions.")],
    endpoint: Name = None,
    traffic: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Stay at this per cent; by default the preset's steps, up to all."),
    ] = None,
    golden_images: GoldenImages = None,
    where: DeployOptions,
) -> None:
    """Deploy a published model: a new version, checked by golden images, that takes over the endpoint step by step.

    The old version serves until the new one has answered correctly, and again if the new one fails. The same command
    resumes an interrupted push and changes nothing after a completed one.

    Example: marco deploy push --model gs://BUCKET/models --endpoint marco --project PROJECT --location europe-west4
    --traffic 10
    """
    from components.vertex import rollout

    service, sections = where.connect(name=endpoint, golden=golden_images, traffic=(traffic,) if traffic else None)
    done = rollout.push_model(service, sections.endpoint, sections.model, model, lambda: _images(sections))
    show_endpoint(service, done.endpoint)


@app.command()
@options.grouped
def promote(*, endpoint: Name = None, golden_images: GoldenImages = None, where: DeployOptions) -> None:
    """Give the version on trial all traffic, in the remaining steps, and undeploy the one before.

    Example: marco deploy promote --endpoint marco --project PROJECT --location europe-west4
    """
    from components.vertex import rollout

    service, sections = where.connect(name=endpoint, golden=golden_images)
    version = version_on_trial(service, sections.endpoint.name)
    _, answers = rollout.fetch(version.uri, lambda: _images(sections))
    show_endpoint(service, rollout.promote(service, sections.endpoint, version, answers))


@app.command()
@options.grouped
def rollback(
    *,
    endpoint: Name = None,
    to: Annotated[str | None, typer.Option(help="The version to serve again; by default the one before.")] = None,
    where: DeployOptions,
) -> None:
    """Undeploy the version on trial or, if none is on trial, serve the version before again.

    Repeating the command goes no further back; use --to for that.

    Example: marco deploy rollback --endpoint marco --project PROJECT --location europe-west4
    """
    from components.vertex import rollout

    service, sections = where.connect(name=endpoint)
    state, done = rollout.rollback(service, sections.endpoint, to)
    options.echo(f"{sections.endpoint.name}: {done}")
    show_endpoint(service, state)


@app.command()
@options.grouped
def status(*, endpoint: Name = None, where: DeployOptions) -> None:
    """Show what an endpoint serves: versions, their traffic, age and origin.

    Example: marco deploy status --endpoint marco --project PROJECT --location europe-west4
    """
    service, sections = where.connect(name=endpoint)
    state = endpoints.find_endpoint(service, sections.endpoint.name)
    if state is None:
        raise InputError(
            f"there is no endpoint {sections.endpoint.name!r} in {sections.vertex.project}; push a model to it"
        )
    show_endpoint(service, state)
    check = endpoints.find_endpoint(service, sections.endpoint.name + endpoints.CHECK)
    if check and check.deployed:
        versions = ", ".join(f"version {model.version}" for model in check.deployed)
        options.echo(f"{check.display_name} still has {versions}, which costs; the next push takes it away")


def _images(sections: configuration.Deploying) -> list[golden.Image]:
    place = sections.endpoint.golden
    return golden.in_place(place) if place else golden.draw(sections.endpoint.golden_images)


@app.command("batch")
@options.grouped
def score_batch(
    *,
    source: Annotated[str, typer.Option("--input", help="gs:// URI of a folder of images.")],
    output: Annotated[str, typer.Option(help="gs:// URI below which Vertex AI reads and writes.")],
    scores: Annotated[
        Path, typer.Option(callback=options.output_file, help="CSV to write here, as marco predict does.")
    ] = Path("scores.csv"),
    version: Annotated[
        str | None, typer.Option(help="The model's version; by default the one that was promoted last.")
    ] = None,
    where: DeployOptions,
) -> None:
    """Score the images of a bucket by a batch prediction on Vertex AI, without an endpoint.

    Repeating the command uses the existing results. The exit status is 1 if some image has no scores.

    Example: marco deploy batch --input gs://BUCKET/plates --output gs://BUCKET/scores --project PROJECT
    --location europe-west4
    """
    service, sections = where.connect(**({} if where.preset else {"name": "batch"}))
    model = endpoints.find_model(service, sections.model)
    known = endpoints.list_versions(service, model) if model else []
    chosen = [item for item in known if (item.number == version if version else "default" in item.aliases)]
    if not chosen:
        numbers = ", ".join(item.number for item in known) or "none"
        raise InputError(
            f"there is no version {version or 'that is promoted'} of {sections.model}; the registry has {numbers}"
        )
    images = batch.images(source)
    note = batch.mark(chosen[0], images)
    place = f"{output.rstrip('/')}/{note[:12]}"
    predicted, left_out = batch.predictions(service, sections.endpoint, chosen[0], images, place, note)
    outcome = batch.table(images, predicted, left_out, f"{sections.model}-{chosen[0].number}", scores)
    counts = ", ".join(f"{count} {name}" for name, count in outcome.by_class.items()) or "none"
    options.echo(f"{scores}: {sum(outcome.by_class.values())} images scored: {counts}")
    if outcome.failed:
        options.echo(
            f"{outcome.failed} of {len(images)} images have no scores, see {score_table.errors_path(scores)}", err=True
        )
        raise typer.Exit(1)
