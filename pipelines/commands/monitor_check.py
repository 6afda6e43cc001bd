"""`marco monitor check`: do the images that come in still look as they did?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from pipelines.commands import inputs, monitor_options

ALARM_STATUS = 4
"""Apart from 1 and 2, which say that the check itself failed."""


def check(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", help="Images or shards: files, folders, globs, local or gs://.")
    ],
    reference: Annotated[str, typer.Option(help="What marco monitor reference wrote: a folder or gs:// URI.")],
    output: Annotated[Path, typer.Option(help="Folder for drift.json and drift.html.")],
    model: monitor_options.Model = None,
    days: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, help="Only files that changed so many days ago at most."),
    ] = None,
    limits: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="JSON file with limits other than the default ones (docs/monitoring.md)."),
    ] = None,
    tracking: Annotated[str, typer.Option(help="MLflow's URI; the check becomes a run of marco-monitoring.")] = "",
    seed: Annotated[int, typer.Option(help="Of the draw of the sample and of the permutations.")] = 0,
    imager: monitor_options.Imagers = None,
    institution: monitor_options.Institution = "",
    beam: monitor_options.Beam = None,
    staging: monitor_options.Staging = "",
) -> None:
    """Compare images with a reference, imager by imager: light, sharpness, colour, what the network sees and predicts.

    An alarm is what is both significant over all tests and larger than its limit. drift.html shows what changed and how
    much, drift.json holds every test. Exit status 4: an alarm; 0: none; 1 or 2: the check itself failed.

    Example: marco monitor check --reference monitoring/reference --model models/3 --output monitoring/today
    --imager "Lab / Rock Imager" --days 7 incoming
    """
    from components.monitoring.limits import read_limits

    told = read_limits(limits)
    found = inputs.model_directory(model, "measuring with")
    from components.monitoring import report
    from components.monitoring.reference import read
    from components.monitoring.watch import check_images, model_facts
    from marco_data.files import is_remote

    compared = read(reference)
    compared.require_model(model_facts(found)["fingerprint"])
    outcome = check_images(
        paths,
        output,
        compared,
        model if model and is_remote(model) else str(found),
        monitor_options.naming(imager, institution),
        told,
        monitor_options.staging(staging, output),
        days,
        seed,
        monitor_options.pipeline(beam),
    )
    for one in outcome["imagers"]:
        typer.echo(f"{one['imager']}: {one['headline']}")
    if outcome["unreadable"]:
        typer.echo(f"could not be measured: {len(outcome['unreadable'])}, see {output / report.JSON}", err=True)
    typer.echo(f"{output / report.HTML}: {report.summary(outcome)}")
    if tracking:
        from components.monitoring.tracking import log

        log(tracking, outcome, [output / report.JSON, output / report.HTML])
    if outcome["alarm"]:
        raise typer.Exit(ALARM_STATUS)
