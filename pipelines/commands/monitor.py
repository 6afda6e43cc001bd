"""`marco monitor`: do the images that come in still look as they did?"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marco_data import place_reader
from marco_model import store
from pipelines.commands import options

if TYPE_CHECKING:
    from components.monitoring.measure import Setup

app = typer.Typer()
ALARM_STATUS = 4
"""Not 1 or 2, which mean that the check itself failed."""


@dataclasses.dataclass(frozen=True)
class MeasureOptions:
    """How images are assigned to imagers, and where Beam measures them: see `components.monitoring.measure`."""

    imager: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME of the imager of every image, or PATTERN=NAME of those whose path below PATH fits; repeatable."
        ),
    ] = None
    institution: Annotated[
        str, typer.Option(help="Of image files: its file names contain the imager (docs/data.md). Shards name theirs.")
    ] = ""
    names: options.Names = ""
    bits: options.Bits = None
    beam: Annotated[
        list[str] | None, typer.Option(help="An option of Beam, such as --beam=--runner=DataflowRunner; repeatable.")
    ] = None
    staging: Annotated[
        str, typer.Option(help="Where Beam's workers put their rows; a URI if they run elsewhere. Default: in OUTPUT.")
    ] = ""

    def setup(self, model: str | None, folder: Path, output: Path) -> "Setup":
        """Returns the setup of a command that has `model` in `folder`; from a URI Beam's workers read it themselves."""
        from components.monitoring import measure

        named = place_reader.NamedPlaces(self.names) if self.names else None
        naming = measure.Naming(measure.parse_rules(self.imager or ()), self.institution, named)
        place = model if model and store.is_remote(model) else str(folder)
        return measure.Setup(place, naming, self.staging or str(output), self.beam or (), self.bits)


@app.command()
@options.grouped
def reference(
    *,
    paths: Annotated[
        list[str], typer.Argument(metavar="DATA…", help="Shards or images: files, folders, globs, local or gs://.")
    ],
    output: Annotated[
        Path,
        typer.Option(callback=options.output_folder, help="Folder for the reference; an older one there is replaced."),
    ],
    model: options.Model = None,
    sample: Annotated[int, typer.Option(min=50, help="Most images of each imager.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draw of the sample.")] = 0,
    measuring: MeasureOptions,
) -> None:
    """Measure images that the model was judged on, to compare later ones with.

    Give the evaluation set, not the training set: a model is surer of images that it was trained on.
    Each imager needs 50 images, better some hundreds. A reference belongs to its model; a new one needs a new one.

    Example: marco monitor reference --model models/3 --output monitoring/reference checked/examples/Split-eval
    """
    folder = options.model_directory(model, "measuring with")
    from components.monitoring import drift, measure, two_sample, watch

    measure.find_images(paths)
    measured = measure.measure_images(paths, measuring.setup(model, folder, output), sample, seed)
    made = drift.make_reference(measured, watch.model_facts(folder))
    drift.write_reference(made, output)
    least = two_sample.Limits().least
    for name, seen in made.facts["seen"].items():
        count = made.facts["measured"].get(name, 0)
        options.echo(f"{name}: {count} images of {seen}")
        if count < least:
            options.echo(f"warning: {name}: a check needs {least} images of an imager, better some hundreds", err=True)
    if made.facts["failed"]:
        options.echo(f"could not be measured: {made.facts['failed']}", err=True)
    options.echo(f"{output}: reference for {made.facts['model']['name']}")


@app.command()
@options.grouped
def check(
    *,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", help="Images or shards: files, folders, globs, local or gs://.")
    ],
    reference: Annotated[str, typer.Option(help="What marco monitor reference wrote: a folder or gs:// URI.")],
    output: Annotated[Path, typer.Option(callback=options.output_folder, help="Folder for drift.json and drift.html.")],
    model: options.Model = None,
    days: Annotated[float | None, typer.Option(min=0, help="Only files that changed within so many days.")] = None,
    limits: Annotated[
        Path | None, typer.Option(help="JSON file with limits other than the default ones (docs/monitoring.md).")
    ] = None,
    tracking: Annotated[
        str,
        typer.Option(
            help="MLflow's URI, or a run's folder: the check becomes a run of marco-monitoring. By default "
            "MLFLOW_TRACKING_URI, or mlflow.db in this directory if it exists."
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the draw of the sample and of the permutations.")] = 0,
    measuring: MeasureOptions,
) -> None:
    """Compare images with a reference, imager by imager: light, sharpness, colour, what the network sees and predicts.

    A change raises an alarm if it is significant over all tests and larger than its limit. drift.html shows the
    changes, drift.json holds every test. Exit status 4: an alarm; 0: none; any other: the check itself failed.

    Example: marco monitor check --reference monitoring/reference --model models/3 --output monitoring/today
    --imager "Lab / Rock Imager" --days 7 incoming
    """
    from components.monitoring import drift, two_sample, watch

    thresholds = two_sample.read_limits(limits)
    folder = options.model_directory(model, "measuring with")
    compared = drift.read_reference(reference)
    compared.require_model(watch.model_facts(folder)["fingerprint"])
    setup = measuring.setup(model, folder, output)
    outcome = watch.check_images(paths, output, compared, setup, thresholds, days, seed)
    for imager_outcome in outcome["imagers"]:
        options.echo(f"{imager_outcome['imager']}: {imager_outcome['headline']}")
    if outcome["unreadable"]:
        options.echo(f"could not be measured: {len(outcome['unreadable'])}, see {output / watch.JSON}", err=True)
    options.echo(f"{output / watch.HTML}: {watch.summary(outcome)}")
    if store := watch.store_of_checks(tracking):
        watch.log_to_mlflow(store, outcome, [output / watch.JSON, output / watch.HTML])
    if outcome["alarm"]:
        raise typer.Exit(ALARM_STATUS)
