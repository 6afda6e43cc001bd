"""`marco submit` and `marco schedule`: a compiled package, run once or on a schedule, on Kubeflow or Vertex AI."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marco_model.errors import InputError
from pipelines.commands import options

if TYPE_CHECKING:
    from pipelines.backend import Backend, Submission

Package = Annotated[Path | None, typer.Argument(help="The .yaml file that marco compile wrote; for Vertex AI .json.")]
Target = Annotated[options.Target, typer.Option(help="Where it runs.")]


@dataclasses.dataclass(frozen=True)
class KubeflowOptions:
    """How to reach Kubeflow Pipelines."""

    host: Annotated[
        str | None,
        typer.Option(
            envvar="KF_PIPELINES_ENDPOINT",
            help="URL of Kubeflow Pipelines; by default that of the pod this runs in, or of kubectl's context.",
        ),
    ] = None
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of the runs, where an installation has several users.")
    ] = None
    token_file: Annotated[
        Path | None, typer.Option(help="A file with a bearer token, which may be renewed during the run.")
    ] = None
    ca: Annotated[Path | None, typer.Option(help="A file with the certificates to trust.")] = None
    experiment: Annotated[
        str | None,
        typer.Option(help="An experiment of Kubeflow; by default marco, which is made if it is missing."),
    ] = None
    create_experiment: Annotated[
        bool, typer.Option("--create-experiment", help="Make the experiment if it is missing.")
    ] = False


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What a run or schedule gets beside the package."""

    data: Annotated[str | None, typer.Option(help="Shards of scored images; by default the package's.")] = None
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training; by default the preset's.")] = None
    run_label: Annotated[str | None, typer.Option(help="A label, kept as the tag run_label of the run in MLflow.")] = (
        None
    )
    parameter: Annotated[
        list[str] | None, typer.Option(help="Any parameter of the package, as name=value. May be repeated.")
    ] = None
    pipeline_root: Annotated[str | None, typer.Option(help="Where artifacts go; by default as compiled.")] = None
    service_account: Annotated[
        str | None,
        typer.Option(help="Service account of the steps, such as marco-pipeline; by default Kubeflow's own."),
    ] = None

    def submission(self, cache: bool = True) -> "Submission":
        """Returns them as a backend takes them; raises `InputError` for a parameter without a `=`."""
        from pipelines.backend import Submission

        values = {"data": self.data, "steps": str(self.steps) if self.steps else None, "run_label": self.run_label}
        parameters = {name: value for name, value in values.items() if value is not None}
        for text in self.parameter or []:
            name, equals, value = text.partition("=")
            if not equals or not name:
                raise InputError(f"--parameter {text!r} has no '='; write it as name=value")
            parameters[name] = value
        return Submission(parameters, self.pipeline_root, self.service_account, cache)


@options.grouped
def submit(
    *,
    package: Package = None,
    target: Target = options.Target.kubeflow,
    kubeflow: KubeflowOptions,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default the pipeline's and the time.")] = None,
    run: RunOptions,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse steps that have not changed.")] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
    follow: Annotated[str | None, typer.Option(help="Start nothing; follow the run of this id.")] = None,
    vertex: options.VertexOptions,
) -> None:
    """Run a compiled package on Kubeflow Pipelines or Vertex AI, and follow it until it ends, one line per step.

    The package is uploaded as a version of its pipeline unless it is there already. The exit status is 1 if the run
    fails. Ctrl-C stops following; the run continues.

    Example: marco submit marco.yaml --host http://localhost:8080 --steps 1000 --run-label first
    """
    service = _backend(target, kubeflow, vertex)
    if follow:
        _follow(service, follow)
        return
    content = service.read_package(_required(package))
    submission = run.submission(cache)
    content.check_parameters(submission.parameters)
    if sentence := service.upload(content):
        typer.echo(sentence)
    identity = service.start(content, name, submission)
    typer.echo(f"Run {identity} started.")
    if wait:
        _follow(service, identity, content.steps)


@options.grouped
def schedule(
    *,
    package: Package = None,
    cron: Annotated[
        str | None,
        typer.Option(
            help="When, as second minute hour day month weekday, in the server's time zone, mostly UTC. On Vertex AI "
            "without seconds, and with a time zone if not UTC: 'TZ=Europe/Berlin 0 3 * * 1'."
        ),
    ] = None,
    target: Target = options.Target.kubeflow,
    name: Annotated[str | None, typer.Option(help="Name of the schedule; by default the pipeline's.")] = None,
    kubeflow: KubeflowOptions,
    run: RunOptions,
    max_concurrency: Annotated[int, typer.Option(min=1, max=10, help="Runs at the same time.")] = 1,
    show: Annotated[bool, typer.Option("--list", help="Change nothing; list the experiment's schedules.")] = False,
    remove: Annotated[str | None, typer.Option(help="Remove the schedule of this name.")] = None,
    vertex: options.VertexOptions,
) -> None:
    """Run a compiled package on Kubeflow Pipelines or Vertex AI on a schedule. The same command again changes nothing.

    A changed package, time or parameter replaces the schedule of the same name. A missed run is not made up for. A run
    over unchanged data reuses every step.

    Example: marco schedule marco.yaml --host http://localhost:8080 --cron "0 0 3 * * 1"
    """
    from pipelines import backend

    service = _backend(target, kubeflow, vertex)
    if remove:
        if not backend.remove_schedules(service, remove):
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
    plan = backend.Plan(name or content.name, when, content, run.submission(), max_concurrency)
    content.check_parameters(plan.submission.parameters)
    identity, outcome = backend.ensure_schedule(service, plan)
    typer.echo(f"Schedule {plan.name} {outcome}: {when} ({words}), {service.schedule_noun} {identity}.")


def _backend(target: options.Target, kubeflow: KubeflowOptions, vertex: options.VertexOptions) -> "Backend":
    """Returns the service that `target` names."""
    if target is options.Target.vertex:
        from pipelines.vertex_backend import VertexBackend

        if names := [
            f"--{name}" for name in ("host", "namespace", "experiment") if getattr(kubeflow, name) is not None
        ]:
            raise InputError(f"{', '.join(names)}: Vertex AI has none; leave it out, or give --target kubeflow")
        return VertexBackend(vertex.place())
    from pipelines.kubeflow_backend import KubeflowBackend

    return KubeflowBackend(**vars(kubeflow))


def _follow(service: "Backend", run: str, steps: tuple[str, ...] = ()) -> None:
    from pipelines.backend import follow

    try:
        follow(service, run, steps)
    except KeyboardInterrupt:
        typer.echo(f"The run goes on; follow it with: marco submit{service.options} --follow {run}")
        raise typer.Exit(130) from None
    typer.echo(f"Run {run} succeeded.")


def _required(package: Path | None) -> Path:
    if package is None:
        raise InputError("no package is named; give the .yaml file that marco compile wrote")
    return package
