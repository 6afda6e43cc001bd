"""`marco submit`: a compiled package, run once."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from pipelines.commands import kubeflow_options as options
from pipelines.commands import vertex_options
from pipelines.commands.target import Target


def submit(
    package: options.Package = None,
    target: options.TargetOption = Target.kubeflow,
    host: options.Host = None,
    namespace: options.Namespace = None,
    token_file: options.TokenFile = None,
    ca: options.Ca = None,
    experiment: options.Experiment = None,
    create_experiment: options.CreateExperiment = False,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default the pipeline's and the time.")] = None,
    data: options.Data = None,
    steps: options.Steps = None,
    run_label: options.RunLabel = None,
    parameter: options.Parameter = None,
    pipeline_root: options.PipelineRoot = None,
    service_account: options.ServiceAccount = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse steps that have not changed.")] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
    follow: Annotated[Optional[str], typer.Option(help="Start nothing; follow the run of this id.")] = None,  # noqa: UP045
    project: vertex_options.Project = None,
    location: vertex_options.Location = None,
    api: vertex_options.Address = None,
) -> None:
    """Run a compiled package on Kubeflow Pipelines or Vertex AI, and follow it, a line a step, until it ends.

    The package is uploaded as a version of its pipeline unless it is there already. The exit status is 1 where the run
    fails. Ctrl-C ends the following, not the run.

    Example: marco submit marco.yaml --host http://localhost:8080 --steps 1000 --run-label first
    """
    import datetime

    if target is Target.vertex:
        from pipelines.commands import vertex_runs

        vertex_options.only_vertex(host=host, namespace=namespace, experiment=experiment)
        place = vertex_options.place(project, location, api)
        given = options.parameters(data, steps, run_label, parameter)
        wanted = vertex_runs.submission(given, pipeline_root, service_account, cache)
        vertex_runs.submit(place, package, name, wanted, wait, follow)
        return
    from pipelines import kubeflow_client, kubeflow_submission

    if follow:
        _follow(kubeflow_client.connect(host, token_file, ca), follow, ())
        return
    read = kubeflow_submission.read_package(options.required(package))
    given = options.parameters(data, steps, run_label, parameter)
    kubeflow_submission.check_parameters(read, given)
    client = kubeflow_client.connect(host, token_file, ca)
    where = kubeflow_submission.find_experiment(client, experiment, namespace, create_experiment)
    pipeline, version, there = kubeflow_submission.upload(client, read, namespace)
    typer.echo(f"Version {read.version} of {read.name} {'was there already' if there else 'uploaded'}.")
    submission = kubeflow_submission.Submission(given, pipeline_root, service_account)
    run_name = name or f"{read.name} {datetime.datetime.now().isoformat(' ', 'seconds')}"
    anew = None if cache else read.path
    run = kubeflow_submission.start(client, where, run_name, pipeline, version, submission, anew)
    typer.echo(f"Run {run} started.")
    if wait:
        _follow(client, run, read.steps)


def _follow(client: object, run: str, steps: tuple[str, ...]) -> None:
    from pipelines import kubeflow_follow

    try:
        kubeflow_follow.follow(client, run, steps)
    except KeyboardInterrupt:
        typer.echo(f"The run goes on; follow it with: marco submit --follow {run}")
        raise typer.Exit(130) from None
    typer.echo(f"Run {run} succeeded.")
