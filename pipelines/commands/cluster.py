"""Looking at the cluster that packages run on."""

from pathlib import Path
from typing import Annotated

import typer

from marco_model.errors import InputError
from pipelines.commands import options

app = typer.Typer()


@app.command()
@options.grouped
def check(
    vertex: options.VertexOptions,
    package: Annotated[Path, typer.Argument(help="The file that marco compile wrote.")],
    target: Annotated[options.Target, typer.Option(help="Where the package runs.")] = "kubeflow",
    namespace: Annotated[str, typer.Option(help="Namespace of the runs.")] = "marco",
    inside: Annotated[bool, typer.Option("--inside", help="Try everything from here, a pod like a step's.")] = False,
    pod: Annotated[bool, typer.Option("--pod", help="Print the pod that runs this with --inside.")] = False,
    service_account: Annotated[
        str | None, typer.Option(help="Account of the steps on Vertex AI; by default Compute Engine's.")
    ] = None,
) -> None:
    """Say whether a cluster has what a package needs, before it is submitted; changes nothing.

    It asks the Kubernetes API that kubectl is configured for, as you; with --target vertex Google Cloud. One line for
    each thing: fine, wrong with the fix, or not visible to you. The exit status is 1 if something is wrong. With
    --inside, in the pod that --pod prints, names, servers and stores are tried; an object below the run's root, where
    models go and where MLflow keeps artifacts, and a file on each volume, are written and removed again.

    Example: marco cluster check marco.yaml --namespace marco
    """
    from pipelines.cluster_check import needs as package_needs

    needs = package_needs.read(package)
    if (target == "kubeflow") != bool(needs.settings):
        raise InputError(f"{package} is not compiled for {target}; give another file, or --target")
    if pod:
        from pipelines.cluster_check import inside as trials

        options.echo(trials.pod_manifest(needs, namespace), nl=False)
        return
    if target == "kubeflow":
        from pipelines.cluster_check import cluster as shown, inside as trials, kubernetes_api

        lines = package_needs.collect(trials.CHECKS if inside else shown.CHECKS, kubernetes_api.Api(namespace), needs)
    else:
        from pipelines import vertex_backend
        from pipelines.cluster_check import vertex as google

        place = vertex_backend.place(vertex.project, vertex.location, vertex.api)
        lines = package_needs.collect(google.CHECKS, google.Cloud(place, service_account or ""), needs)
    width = max(len(finding.subject) for finding in lines)
    for finding in lines:
        options.echo(f"{finding.subject:{width}}  {finding.state:11}  {finding.text}")
    wrong = sum(finding.state == package_needs.WRONG for finding in lines)
    unseen = sum(finding.state == package_needs.UNSEEN for finding in lines)
    options.echo(f"{len(lines)} looked at, {wrong} wrong, {unseen} not visible.")
    if wrong:
        raise typer.Exit(1)
