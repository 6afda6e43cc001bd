"""`marco compile`: the pipeline as a package for a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from pipelines.commands.target import Target


def compile_(
    output: Annotated[Path, typer.Option(help="The package to write: a .yaml file, for Vertex AI a .json file.")],
    preset: Annotated[str, typer.Option(help="A preset's name, or a .yaml file of your own.")] = "paper",
    target: Annotated[Target, typer.Option(help="Where the package runs.")] = Target.kubeflow,
    root: Annotated[
        str,
        typer.Option(
            help="A URI for artifacts, checkpoints, models and data; or a mounted path for all but the artifacts, "
            "which Kubeflow Pipelines then keeps in its own store. For Vertex AI gs://BUCKET/FOLDER."
        ),
    ] = "/shared",
    image: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Container image with this project, best by digest; by default cluster.image."),
    ] = None,
    data: Annotated[Optional[str], typer.Option(help="MARCO shards; by default the preset's, or ROOT/data.")] = None,  # noqa: UP045
    site: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A .yaml file laid over the preset: what your cluster gives, such as k8s/site.yaml."),
    ] = None,
    change: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Change one value of the preset, such as recipe.steps=500. May be repeated."),
    ] = None,
) -> None:
    """Compile the pipeline of `marco run`, unchanged, into a package of Kubeflow Pipelines or Vertex AI (schema 2.1).

    Data, steps of training and a run's label are parameters of the package, with the preset's as defaults.

    Example: marco compile --preset paper --site k8s/site.yaml --data gs://BUCKET/marco --root gs://BUCKET/runs
    --image REGISTRY/marco@sha256:… --output marco.yaml
    """
    from pipelines import configuration

    if target is Target.vertex:
        from pipelines.vertex_runner import compile_package
    else:
        from pipelines.kubeflow_runner import compile_package
    changes = [*(change or []), *([f"cluster.image={image}"] if image else [])]
    loaded = configuration.load(preset, changes, data, site)
    steps = compile_package(loaded, root, output)
    typer.echo(f"{steps} steps in {output}; image {loaded.cluster.image}")
    if "@sha256:" not in loaded.cluster.image:
        typer.echo("note: name the image by its digest; behind a tag it can change, and finished steps would be reused")
