"""`marco submit`: a compiled package, run once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marco_model.errors import InputError
from pipelines.commands import deploy
from pipelines.commands.run import Target

Package = Annotated[Path | None, typer.Argument(help="The .yaml file that marco compile wrote.")]
TargetOption = Annotated[Target, typer.Option(help="Where it runs.")]
Host = Annotated[
    str | None,
    typer.Option(
        envvar="KF_PIPELINES_ENDPOINT",
        help="URL of Kubeflow Pipelines; by default that of the pod this runs in, or of kubectl's context.",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(help="Namespace of the runs, where an installation has several users."),
]
TokenFile = Annotated[Path | None, typer.Option(help="A file with a bearer token; it may be renewed on the way.")]
Ca = Annotated[Path | None, typer.Option(help="A file with the certificates to trust.")]
Experiment = Annotated[
    str | None,
    typer.Option(help="An experiment of Kubeflow; by default marco, which is made where it is missing."),
]
CreateExperiment = Annotated[bool, typer.Option("--create-experiment", help="Make the experiment if it is missing.")]
Data = Annotated[str | None, typer.Option(help="Shards of scored images; by default the package's.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of training; by default the preset's.")]
RunLabel = Annotated[str | None, typer.Option(help="A label, kept as the tag run_label of the run in MLflow.")]
Parameter = Annotated[
    list[str] | None,
    typer.Option(help="Any parameter of the package, as name=value. May be repeated."),
]
PipelineRoot = Annotated[str | None, typer.Option(help="Where artifacts go; by default as compiled.")]
ServiceAccount = Annotated[
    str | None,
    typer.Option(help="Service account of the steps, such as marco-pipeline; by default Kubeflow's own."),
]


def parameters(data: str | None, steps: int | None, run_label: str | None, others: list[str] | None) -> dict[str, str]:
    """Returns the parameters that were given, by name; raises `InputError` for one without a `=`."""
    given = {"data": data, "steps": str(steps) if steps else None, "run_label": run_label}
    found = {name: value for name, value in given.items() if value is not None}
    for other in others or []:
        name, equals, value = other.partition("=")
        if not equals or not name:
            raise InputError(f"--parameter {other!r} has no '='; write it as name=value")
        found[name] = value
    return found


def required(package: Path | None) -> Path:
    """Returns the package; raises `InputError` where none was named."""
    if package is None:
        raise InputError("no package is named; give the .yaml file that marco compile wrote")
    return package


if TYPE_CHECKING:
    from components.vertex.api import Api
    from components.vertex.options import Vertex
    from pipelines.vertex_backend import Submission


def vertex_submission(
    parameters: dict[str, str], pipeline_root: str | None, service_account: str | None, cache: bool
) -> Submission:
    """Returns what a run is given."""
    from pipelines.vertex_backend import Submission

    return Submission(parameters, pipeline_root, service_account or "", cache=cache)


def submit_to_vertex(
    place: Vertex, package: Path | None, name: str | None, given: Submission, wait: bool, follow: str | None
) -> None:
    """Starts a run and follows it, or follows the one that is named."""
    from components.vertex.api import Api
    from pipelines import vertex_backend

    api = Api(place)
    if follow:
        _follow_on_vertex(api, follow)
        return
    read = vertex_backend.read(required(package))
    vertex_backend.check_parameters(read, given.parameters)
    run = vertex_backend.start(api, read, name or read["pipelineInfo"]["name"], given)
    typer.echo(f"Run {run} started.")
    if wait:
        _follow_on_vertex(api, run)


def schedule_on_vertex(
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
    from pipelines import vertex_backend

    api = Api(place)
    if remove:
        if not vertex_backend.remove(api, remove):
            raise InputError(f"there is no schedule {remove!r}; marco schedule --target vertex --list shows them")
        typer.echo(f"Schedule {remove} removed.")
        return
    if show:
        for one in vertex_backend.find(api, None):
            state = "on" if one.state.name == "ACTIVE" else one.state.name.lower()
            typer.echo(f"{one.display_name}  {one.cron}  {state}  {one.name.rsplit('/', 1)[1]}")
        return
    if not cron:
        raise InputError("--cron is missing; give minute hour day month weekday, such as 'TZ=Europe/Berlin 0 3 * * 1'")
    when, words = vertex_backend.read_cron(cron)
    read = vertex_backend.read(required(package))
    vertex_backend.check_parameters(read, given.parameters)
    called = name or read["pipelineInfo"]["name"]
    identity, done = vertex_backend.ensure(api, called, when, read, given, max_concurrency)
    typer.echo(f"Schedule {called} {done}: {when} ({words}), schedule {identity}.")


def _follow_on_vertex(api: Api, run: str) -> None:
    from pipelines import vertex_backend

    try:
        vertex_backend.follow(api, run)
    except KeyboardInterrupt:
        typer.echo(f"The run goes on; follow it with: marco submit --target vertex --follow {run}")
        raise typer.Exit(130) from None
    typer.echo(f"Run {run} succeeded.")


def submit(
    package: Package = None,
    target: TargetOption = Target.kubeflow,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    experiment: Experiment = None,
    create_experiment: CreateExperiment = False,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default the pipeline's and the time.")] = None,
    data: Data = None,
    steps: Steps = None,
    run_label: RunLabel = None,
    parameter: Parameter = None,
    pipeline_root: PipelineRoot = None,
    service_account: ServiceAccount = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse steps that have not changed.")] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
    follow: Annotated[str | None, typer.Option(help="Start nothing; follow the run of this id.")] = None,
    project: deploy.Project = None,
    location: deploy.Location = None,
    api: deploy.Address = None,
) -> None:
    """Run a compiled package on Kubeflow Pipelines or Vertex AI, and follow it, a line a step, until it ends.

    The package is uploaded as a version of its pipeline unless it is there already. The exit status is 1 where the run
    fails. Ctrl-C ends the following, not the run.

    Example: marco submit marco.yaml --host http://localhost:8080 --steps 1000 --run-label first
    """
    import datetime

    if target is Target.vertex:
        deploy.only_vertex(host=host, namespace=namespace, experiment=experiment)
        place = deploy.place(project, location, api)
        given = parameters(data, steps, run_label, parameter)
        wanted = vertex_submission(given, pipeline_root, service_account, cache)
        submit_to_vertex(place, package, name, wanted, wait, follow)
        return
    from pipelines import kubeflow_backend

    if follow:
        _follow(kubeflow_backend.connect(host, token_file, ca), follow, ())
        return
    read = kubeflow_backend.read_package(required(package))
    given = parameters(data, steps, run_label, parameter)
    kubeflow_backend.check_parameters(read, given)
    client = kubeflow_backend.connect(host, token_file, ca)
    where = kubeflow_backend.find_experiment(client, experiment, namespace, create_experiment)
    pipeline, version, there = kubeflow_backend.upload(client, read, namespace)
    typer.echo(f"Version {read.version} of {read.name} {'was there already' if there else 'uploaded'}.")
    submission = kubeflow_backend.Submission(given, pipeline_root, service_account)
    run_name = name or f"{read.name} {datetime.datetime.now().isoformat(' ', 'seconds')}"
    anew = None if cache else read.path
    run = kubeflow_backend.start(client, where, run_name, pipeline, version, submission, anew)
    typer.echo(f"Run {run} started.")
    if wait:
        _follow(client, run, read.steps)


def _follow(client: object, run: str, steps: tuple[str, ...]) -> None:
    from pipelines import kubeflow_backend

    try:
        kubeflow_backend.follow(client, run, steps)
    except KeyboardInterrupt:
        typer.echo(f"The run goes on; follow it with: marco submit --follow {run}")
        raise typer.Exit(130) from None
    typer.echo(f"Run {run} succeeded.")


def schedule(
    package: Package = None,
    cron: Annotated[
        str | None,
        typer.Option(
            help="When, as second minute hour day month weekday, in the server's time zone, mostly UTC. On Vertex AI "
            "without seconds, and with a time zone if not UTC: 'TZ=Europe/Berlin 0 3 * * 1'."
        ),
    ] = None,
    target: TargetOption = Target.kubeflow,
    name: Annotated[str | None, typer.Option(help="Name of the schedule; by default the pipeline's.")] = None,
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    experiment: Experiment = None,
    create_experiment: CreateExperiment = False,
    data: Data = None,
    steps: Steps = None,
    run_label: RunLabel = None,
    parameter: Parameter = None,
    pipeline_root: PipelineRoot = None,
    service_account: ServiceAccount = None,
    max_concurrency: Annotated[int, typer.Option(min=1, max=10, help="Runs at the same time.")] = 1,
    show: Annotated[bool, typer.Option("--list", help="Change nothing; list the experiment's schedules.")] = False,
    remove: Annotated[str | None, typer.Option(help="Remove the schedule of this name.")] = None,
    project: deploy.Project = None,
    location: deploy.Location = None,
    api: deploy.Address = None,
) -> None:
    """Run a compiled package on Kubeflow Pipelines or Vertex AI on a schedule. The same command again changes nothing.

    A changed package, time or parameter replaces the schedule of the same name. A run that was missed is not made up
    for. A run over unchanged data reuses every step.

    Example: marco schedule marco.yaml --host http://localhost:8080 --cron "0 0 3 * * 1"
    """
    if target is Target.vertex:
        deploy.only_vertex(host=host, namespace=namespace, experiment=experiment)
        place = deploy.place(project, location, api)
        given = parameters(data, steps, run_label, parameter)
        wanted = vertex_submission(given, pipeline_root, service_account, True)
        schedule_on_vertex(place, package, cron, name, wanted, max_concurrency, show, remove)
        return
    from pipelines import kubeflow_backend

    if show or remove:
        client = kubeflow_backend.connect(host, token_file, ca)
        there = kubeflow_backend.look_up_experiment(client, experiment, namespace)
        if experiment and not there:
            raise InputError(f"there is no experiment {experiment!r}; mend --experiment or --namespace")
        if remove:
            _remove(client, remove, there)
        elif there:
            _list(client, there)
        return
    if not cron:
        raise InputError("--cron is missing; give second minute hour day month weekday, such as '0 0 3 * * 1'")
    when, words = kubeflow_backend.read_cron(cron)
    read = kubeflow_backend.read_package(required(package))
    given = parameters(data, steps, run_label, parameter)
    kubeflow_backend.check_parameters(read, given)
    client = kubeflow_backend.connect(host, token_file, ca)
    where = kubeflow_backend.find_experiment(client, experiment, namespace, create_experiment)
    pipeline, version, _ = kubeflow_backend.upload(client, read, namespace)
    submission = kubeflow_backend.Submission(given, pipeline_root, service_account)
    identity, done = kubeflow_backend.ensure(
        client, name or read.name, where, when, pipeline, version, submission, max_concurrency
    )
    typer.echo(f"Schedule {name or read.name} {done}: {when} ({words}), recurring run {identity}.")


def _list(client: object, experiment: str) -> None:
    from pipelines import kubeflow_backend

    with kubeflow_backend.reaching("Kubeflow Pipelines"):
        listed = kubeflow_backend.find(client, None, experiment)
    for one in listed:
        when = one.trigger.cron_schedule.cron if one.trigger and one.trigger.cron_schedule else "no cron"
        typer.echo(f"{one.display_name}  {when}  {'on' if one.mode == 'ENABLE' else 'off'}  {one.recurring_run_id}")


def _remove(client: object, name: str, experiment: str | None) -> None:
    from pipelines import kubeflow_backend

    if not experiment or not kubeflow_backend.remove(client, name, experiment):
        raise InputError(f"there is no schedule {name!r}; marco schedule --list shows them")
    typer.echo(f"Schedule {name} removed.")
