"""Looking at the cluster that packages run on."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def cluster() -> None:
    """Look at the cluster that packages run on."""


@app.command()
def check(
    package: Annotated[Path, typer.Argument(help="The .yaml file that marco compile wrote.")],
    namespace: Annotated[str, typer.Option(help="Namespace of the runs.")] = "marco",
) -> None:
    """Say whether a cluster has what a package needs, before it is submitted; changes nothing.

    It asks the Kubernetes API that kubectl is configured for, as you. One line for each thing: fine, wrong with the
    fix, or not visible to you. The exit status is 1 if something is wrong. Who runs the cluster sees most.

    Example: marco cluster check marco.yaml --namespace marco
    """
    from pipelines import cluster_check

    findings = cluster_check.check(cluster_check.Api(namespace), cluster_check.read_needs(package))
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        typer.echo(f"{finding.subject:{width}}  {finding.state:11}  {finding.text}")
    wrong = sum(finding.state == cluster_check.WRONG for finding in findings)
    unseen = sum(finding.state == cluster_check.UNSEEN for finding in findings)
    typer.echo(f"{len(findings)} looked at, {wrong} wrong, {unseen} not visible.")
    if wrong:
        raise typer.Exit(1)
