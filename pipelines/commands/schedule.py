"""`marco schedule`: a compiled package, run again and again."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from marco_model.errors import InputError
from pipelines.commands import kubeflow_options as options
from pipelines.commands import vertex_options
from pipelines.commands.target import Target


def schedule(
    package: options.Package = None,
    cron: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="When, as second minute hour day month weekday, in the server's time zone, mostly UTC. On Vertex AI "
            "without seconds, and with a time zone if not UTC: 'TZ=Europe/Berlin 0 3 * * 1'."
        ),
    ] = None,
    target: options.TargetOption = Target.kubeflow,
    name: Annotated[Optional[str], typer.Option(help="Name of the schedule; by default the pipeline's.")] = None,  # noqa: UP045
    host: options.Host = None,
    namespace: options.Namespace = None,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
    experiment: options.Experiment = None,
    create_experiment: options.CreateExperiment = False,
    data: options.Data = None,
    steps: options.Steps = None,
    run_label: options.RunLabel = None,
    parameter: options.Parameter = None,
    pipeline_root: options.PipelineRoot = None,
    service_account: options.ServiceAccount = None,
    max_concurrency: Annotated[int, typer.Option(min=1, max=10, help="Runs at the same time.")] = 1,
    show: Annotated[bool, typer.Option("--list", help="Change nothing; list the experiment's schedules.")] = False,
    remove: Annotated[Optional[str], typer.Option(help="Remove the schedule of this name.")] = None,  # noqa: UP045
    project: vertex_options.Project = None,
    location: vertex_options.Location = None,
    api: vertex_options.Address = None,
) -> None:
    """Run a compiled package on Kubeflow Pipelines or Vertex AI on a schedule. The same command again changes nothing.

    A changed package, time or parameter replaces the schedule of the same name. A run that was missed is not made up
    for. A run over unchanged data reuses every step.

    Example: marco schedule marco.yaml --host http://localhost:8080 --cron "0 0 3 * * 1"
    """
    if target is Target.vertex:
        from pipelines.commands import vertex_runs

        vertex_options.only_vertex(host=host, namespace=namespace, experiment=experiment)
        place = vertex_options.place(project, location, api)
        given = options.parameters(data, steps, run_label, parameter)
        wanted = vertex_runs.submission(given, pipeline_root, service_account, True)
        vertex_runs.schedule(place, package, cron, name, wanted, max_concurrency, show, remove)
        return
    from pipelines import kubeflow_client, kubeflow_schedule, kubeflow_submission

    if show or remove:
        client = kubeflow_client.connect(host, token_file, ca)
        there = kubeflow_submission.look_up_experiment(client, experiment, namespace)
        if experiment and not there:
            raise InputError(f"there is no experiment {experiment!r}; mend --experiment or --namespace")
        if remove:
            _remove(client, remove, there)
        elif there:
            _list(client, there)
        return
    if not cron:
        raise InputError("--cron is missing; give second minute hour day month weekday, such as '0 0 3 * * 1'")
    when, words = kubeflow_schedule.read_cron(cron)
    read = kubeflow_submission.read_package(options.required(package))
    given = options.parameters(data, steps, run_label, parameter)
    kubeflow_submission.check_parameters(read, given)
    client = kubeflow_client.connect(host, token_file, ca)
    where = kubeflow_submission.find_experiment(client, experiment, namespace, create_experiment)
    pipeline, version, _ = kubeflow_submission.upload(client, read, namespace)
    submission = kubeflow_submission.Submission(given, pipeline_root, service_account)
    identity, done = kubeflow_schedule.ensure(
        client, name or read.name, where, when, pipeline, version, submission, max_concurrency
    )
    typer.echo(f"Schedule {name or read.name} {done}: {when} ({words}), recurring run {identity}.")


def _list(client: object, experiment: str) -> None:
    from pipelines import kubeflow_client, kubeflow_schedule

    with kubeflow_client.reaching("Kubeflow Pipelines"):
        listed = kubeflow_schedule.find(client, None, experiment)
    for one in listed:
        when = one.trigger.cron_schedule.cron if one.trigger and one.trigger.cron_schedule else "no cron"
        typer.echo(f"{one.display_name}  {when}  {'on' if one.mode == 'ENABLE' else 'off'}  {one.recurring_run_id}")


def _remove(client: object, name: str, experiment: str | None) -> None:
    from pipelines import kubeflow_schedule

    if not experiment or not kubeflow_schedule.remove(client, name, experiment):
        raise InputError(f"there is no schedule {name!r}; marco schedule --list shows them")
    typer.echo(f"Schedule {name} removed.")
