"""`marco submit` and `marco schedule`: a compiled package, run once or on a schedule, on Kubeflow or Vertex AI."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marco_model.errors import InputError
from pipelines.commands import deploy
from pipelines.commands.run import Target

if TYPE_CHECKING:
    from pipelines.backend import Backend

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
    """Run a compiled package on Kubeflow Pipelines or Vertex AI, and follow it until it ends, one line per step.

    The package is uploaded as a version of its pipeline unless it is there already. The exit status is 1 if the run
    fails. Ctrl-C stops following; the run continues.

    Example: marco submit marco.yaml --host http://localhost:8080 --steps 1000 --run-label first
    """
    from pipelines.backend import Submission, check_parameters

    service = _backend(target, host, namespace, token_file, ca, experiment, create_experiment, project, location, api)
    if follow:
        _follow(service, follow, ())
        return
    content = service.read_package(_required(package))
    submission = Submission(_parameters(data, steps, run_label, parameter), pipeline_root, service_account, cache)
    check_parameters(content, submission.parameters)
    if sentence := service.upload(content):
        typer.echo(sentence)
    run = service.start(content, name, submission)
    typer.echo(f"Run {run} started.")
    if wait:
        _follow(service, run, content.steps)


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

    A changed package, time or parameter replaces the schedule of the same name. A missed run is not made up
    for. A run over unchanged data reuses every step.

    Example: marco schedule marco.yaml --host http://localhost:8080 --cron "0 0 3 * * 1"
    """
    from pipelines.backend import Submission, check_parameters

    service = _backend(target, host, namespace, token_file, ca, experiment, create_experiment, project, location, api)
    if remove:
        if not service.remove_schedules(remove):
            raise InputError(f"there is no schedule {remove!r}; marco schedule{service.options} --list shows them")
        typer.echo(f"Schedule {remove} removed.")
        return
    if show:
        for existing in service.schedules():
            typer.echo(f"{existing.name}  {existing.cron}  {existing.state}  {existing.identity}")
        return
    if not cron:
        raise InputError(f"--cron is missing; give {service.cron_fields}")
    when, words = service.read_cron(cron)
    content = service.read_package(_required(package))
    submission = Submission(_parameters(data, steps, run_label, parameter), pipeline_root, service_account)
    check_parameters(content, submission.parameters)
    name = name or content.name
    identity, outcome = service.ensure_schedule(name, when, content, submission, max_concurrency)
    typer.echo(f"Schedule {name} {outcome}: {when} ({words}), {service.schedule_noun} {identity}.")


def _backend(
    target: Target,
    host: str | None,
    namespace: str | None,
    token_file: Path | None,
    ca: Path | None,
    experiment: str | None,
    create_experiment: bool,
    project: str | None,
    location: str | None,
    api: str | None,
) -> "Backend":
    """Returns the service that `target` and the options name."""
    if target is Target.vertex:
        from pipelines.vertex_backend import VertexBackend

        deploy.only_vertex(host=host, namespace=namespace, experiment=experiment)
        return VertexBackend(deploy.place(project, location, api))
    from pipelines.kubeflow_backend import KubeflowBackend

    return KubeflowBackend(host, namespace, token_file, ca, experiment, create_experiment)


def _follow(service: "Backend", run: str, steps: tuple[str, ...]) -> None:
    from pipelines.backend import follow

    try:
        follow(service, run, steps)
    except KeyboardInterrupt:
        typer.echo(f"The run goes on; follow it with: marco submit{service.options} --follow {run}")
        raise typer.Exit(130) from None
    typer.echo(f"Run {run} succeeded.")


def _parameters(data: str | None, steps: int | None, run_label: str | None, others: list[str] | None) -> dict[str, str]:
    """Returns the package's parameters by name, without those left out; raises `InputError` for one without a `=`."""
    values = {"data": data, "steps": str(steps) if steps else None, "run_label": run_label}
    parameters = {name: value for name, value in values.items() if value is not None}
    for other in others or []:
        name, equals, value = other.partition("=")
        if not equals or not name:
            raise InputError(f"--parameter {other!r} has no '='; write it as name=value")
        parameters[name] = value
    return parameters


def _required(package: Path | None) -> Path:
    if package is None:
        raise InputError("no package is named; give the .yaml file that marco compile wrote")
    return package
