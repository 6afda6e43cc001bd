"""`marco monitor check`: do the images that come in still look as they did?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.commands import score

Imagers = Annotated[
    list[str] | None,
    typer.Option(
        "--imager",
        help="NAME of the imager of every image, or PATTERN=NAME of those whose path below PATH fits; repeatable.",
    ),
]
Institution = Annotated[
    str, typer.Option(help="Of image files: its file names tell the imager (docs/data.md). Shards name theirs.")
]
Beam = Annotated[
    list[str] | None,
    typer.Option("--beam", help="An option of Beam, such as --beam=--runner=DataflowRunner; repeatable."),
]
Staging = Annotated[
    str, typer.Option(help="Where Beam's workers put their rows; a URI where they run elsewhere. Default: in OUTPUT.")
]
Model = Annotated[
    str | None,
    typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier, if it is installed."),
]


def naming(imagers: Sequence[str] | None, institution: str) -> Any:
    """Returns the rules that name imagers."""
    from components.monitoring.measure import Naming, parse_told

    return Naming(parse_told(imagers or ()), institution)


def pipeline(options: Sequence[str] | None) -> Callable[[], Any] | None:
    """Returns what makes the Beam pipeline; None is this project's local one."""
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    if not options:
        return None
    import apache_beam as beam

    return lambda: beam.Pipeline(argv=list(options))


def staging_folder(staging: str, output: Path) -> str:
    """Returns where the workers keep their rows during a run."""
    return staging or str(output.resolve().with_name(f".{output.name}.rows"))


def reference(
    paths: Annotated[
        list[str], typer.Argument(metavar="DATA…", help="Shards or images: files, folders, globs, local or gs://.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the reference; an older one there is replaced.")],
    model: Model = None,
    sample: Annotated[int, typer.Option(min=50, help="Most images of each imager.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draw of the sample.")] = 0,
    imager: Imagers = None,
    institution: Institution = "",
    beam: Beam = None,
    staging: Staging = "",
) -> None:
    """Measure images that the model was judged on, to compare later ones with.

    Give the evaluation set, not the training set: a model is surer of images that it was trained on.
    Each imager needs 50 images, better some hundreds. A reference belongs to its model; a new one needs a new one.

    Example: marco monitor reference --model models/3 --output monitoring/reference checked/examples/Split-eval
    """
    found = score.model_directory(model, "measuring with")
    from components.monitoring.measure import find_images
    from components.monitoring.two_sample import Limits
    from marco_model.errors import InputError

    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; give a folder")
    find_images(paths)
    from components.monitoring.measure import Sampling
    from components.monitoring.watch import make_reference, model_facts
    from marco_model.store import is_remote

    made = make_reference(
        paths,
        output,
        (model if model and is_remote(model) else str(found), model_facts(found)),
        naming(imager, institution),
        Sampling(images=sample, seed=seed),
        staging_folder(staging, output),
        pipeline(beam),
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


ALARM_STATUS = 4
"""Not 1 or 2, which mean that the check itself failed."""


def check(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", help="Images or shards: files, folders, globs, local or gs://.")
    ],
    reference: Annotated[str, typer.Option(help="What marco monitor reference wrote: a folder or gs:// URI.")],
    output: Annotated[Path, typer.Option(help="Folder for drift.json and drift.html.")],
    model: Model = None,
    days: Annotated[
        float | None,
        typer.Option(min=0, help="Only files that changed within so many days."),
    ] = None,
    limits: Annotated[
        Path | None,
        typer.Option(help="JSON file with limits other than the default ones (docs/monitoring.md)."),
    ] = None,
    tracking: Annotated[str, typer.Option(help="MLflow's URI; the check becomes a run of marco-monitoring.")] = "",
    seed: Annotated[int, typer.Option(help="Of the draw of the sample and of the permutations.")] = 0,
    imager: Imagers = None,
    institution: Institution = "",
    beam: Beam = None,
    staging: Staging = "",
) -> None:
    """Compare images with a reference, imager by imager: light, sharpness, colour, what the network sees and predicts.

    A change raises an alarm if it is significant over all tests and larger than its limit. drift.html shows the
    changes, drift.json holds every test. Exit status 4: an alarm; 0: none; 1 or 2: the check itself failed.

    Example: marco monitor check --reference monitoring/reference --model models/3 --output monitoring/today
    --imager "Lab / Rock Imager" --days 7 incoming
    """
    from components.monitoring.two_sample import read_limits

    thresholds = read_limits(limits)
    found = score.model_directory(model, "measuring with")
    from components.monitoring import watch
    from components.monitoring.drift import read_reference
    from components.monitoring.watch import check_images, model_facts
    from marco_model.store import is_remote

    compared = read_reference(reference)
    compared.require_model(model_facts(found)["fingerprint"])
    outcome = check_images(
        paths,
        output,
        compared,
        model if model and is_remote(model) else str(found),
        naming(imager, institution),
        thresholds,
        staging_folder(staging, output),
        days,
        seed,
        pipeline(beam),
    )
    for imager_outcome in outcome["imagers"]:
        typer.echo(f"{imager_outcome['imager']}: {imager_outcome['headline']}")
    if outcome["unreadable"]:
        typer.echo(f"could not be measured: {len(outcome['unreadable'])}, see {output / watch.JSON}", err=True)
    typer.echo(f"{output / watch.HTML}: {watch.summary(outcome)}")
    if tracking:
        from components.monitoring.watch import log_to_mlflow

        log_to_mlflow(tracking, outcome, [output / watch.JSON, output / watch.HTML])
    if outcome["alarm"]:
        raise typer.Exit(ALARM_STATUS)
