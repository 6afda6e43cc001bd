"""What `marco submit` and `marco schedule` do with `--target vertex`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from marco_model.errors import InputError
from pipelines.commands.kubeflow_options import required

if TYPE_CHECKING:
    from components.vertex.api import Api
    from components.vertex.options import Vertex
    from pipelines.vertex_submission import Submission


def submission(
    parameters: dict[str, str], pipeline_root: str | None, service_account: str | None, cache: bool
) -> Submission:
    """Returns what a run is given."""
    from pipelines.vertex_submission import Submission

    return Submission(parameters, pipeline_root, service_account or "", cache=cache)


def submit(
    place: Vertex, package: Path | None, name: str | None, given: Submission, wait: bool, follow: str | None
) -> None:
    """Starts a run and follows it, or follows the one that is named."""
    from components.vertex.api import Api
    from pipelines import vertex_submission

    api = Api(place)
    if follow:
        _follow(api, follow)
        return
    read = vertex_submission.read(required(package))
    vertex_submission.check_parameters(read, given.parameters)
    run = vertex_submission.start(api, read, name or read["pipelineInfo"]["name"], given)
    typer.echo(f"Run {run} started.")
    if wait:
        _follow(api, run)


def schedule(
    place: Vertex,
    package: Path | None,
    cron: str | None,
    name: str | None,
    given: Submission,
    max_concurrency: int,
    show: bool,
    remove: str | None,
) -> None:
    """Makes, lists or removes schedules."""
    from components.vertex.api import Api
    from pipelines import vertex_schedule, vertex_submission

    api = Api(place)
    if remove:
        if not vertex_schedule.remove(api, remove):
            raise InputError(f"there is no schedule {remove!r}; marco schedule --target vertex --list shows them")
        typer.echo(f"Schedule {remove} removed.")
        return
    if show:
        for one in vertex_schedule.find(api, None):
            state = "on" if one.state.name == "ACTIVE" else one.state.name.lower()
            typer.echo(f"{one.display_name}  {one.cron}  {state}  {one.name.rsplit('/', 1)[1]}")
        return
    if not cron:
        raise InputError("--cron is missing; give minute hour day month weekday, such as 'TZ=Europe/Berlin 0 3 * * 1'")
    when, words = vertex_schedule.read_cron(cron)
    read = vertex_submission.read(required(package))
    vertex_submission.check_parameters(read, given.parameters)
    called = name or read["pipelineInfo"]["name"]
    identity, done = vertex_schedule.ensure(api, called, when, read, given, max_concurrency)
    typer.echo(f"Schedule {called} {done}: {when} ({words}), schedule {identity}.")


def _follow(api: Api, run: str) -> None:
    from pipelines import vertex_submission

    try:
        vertex_submission.follow(api, run)
    except KeyboardInterrupt:
        typer.echo(f"The run goes on; follow it with: marco submit --target vertex --follow {run}")
        raise typer.Exit(130) from None
    typer.echo(f"Run {run} succeeded.")
