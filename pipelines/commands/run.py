"""`marco run`: the whole pipeline on this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands import options


def run(
    preset: options.Preset = "local",
    output: Annotated[Path, typer.Option(help="Folder of the run: data, steps, models, MLflow, summary.json.")] = Path(
        "runs/local"
    ),
    data: Annotated[str | None, typer.Option(help="Folder, glob or gs:// URI of MARCO shards.")] = None,
    overlay: Annotated[
        str | None,
        typer.Option(help="Labels that experts gave, which `marco relabel merge` wrote; local or gs://."),
    ] = None,
    change: options.Change = None,
) -> None:
    """Read, check, train, judge and publish: the whole pipeline on this machine.

    A step whose inputs and settings have not changed is reused; a killed training resumes from its last
    checkpoint. Exit status 0: the model was blessed and published; 3: it was trained but not blessed.

    Example: marco run --preset finetune --data shards --output runs/mine --set recipe.steps=500
    """
    from rich.console import Console

    from pipelines import configuration, local_runner

    changes = [*(change or []), *([f"data.overlay={json.dumps(overlay)}"] if overlay else [])]
    results = local_runner.run(configuration.load(preset, changes, data), output)
    console = Console()
    console.print(local_runner.summary_table(results))
    closing = "\n".join(local_runner.closing_lines(results, output))
    console.print(closing, soft_wrap=True, highlight=False, markup=False, emoji=False)
    if not results["blessed"]:
        raise typer.Exit(3)


def train(
    job: Annotated[str, typer.Argument(help="The job.json beside the checkpoints of a training; local or gs://.")],
    heartbeat: Annotated[
        str, typer.Option(help="A file that whoever started this keeps changing; when it rests, save and end.")
    ] = "",
    silence: Annotated[
        float, typer.Option(help="Seconds without a change after which --heartbeat rests.", min=1)
    ] = 180,
) -> None:
    """Take part in a training, or take it up again, without the pipeline around it.

    Every process of a cluster runs this with its own TF_CONFIG (docs/training.md); without a cluster it trains alone.

    Example: marco train runs/local/checkpoints/0123456789abcdef/job.json
    """
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for ours in ("marco_model", "components"):
        logging.getLogger(ours).setLevel(logging.INFO)
    from components.trainer.jobset import end_with

    if heartbeat:
        end_with(heartbeat, silence)
    from components.trainer import execution
    from components.trainer.job import read

    execution.run(read(job))


def compile_(
    output: Annotated[Path, typer.Option(help="The package to write: a .yaml file, for Vertex AI a .json file.")],
    preset: options.Preset = "paper",
    target: Annotated[options.Target, typer.Option(help="Where the package runs.")] = options.Target.kubeflow,
    root: Annotated[
        str,
        typer.Option(
            help="A URI for artifacts, checkpoints, models and data; or a mounted path for all but the artifacts, "
            "which Kubeflow Pipelines then keeps in its own store. For Vertex AI gs://BUCKET/FOLDER."
        ),
    ] = "/shared",
    image: Annotated[
        str | None,
        typer.Option(help="Container image with this project, best by digest; by default cluster.image."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="MARCO shards; by default the preset's, or ROOT/data.")] = None,
    site: Annotated[
        Path | None,
        typer.Option(help="A .yaml file laid over the preset: what your cluster gives, such as k8s/site.yaml."),
    ] = None,
    change: options.Change = None,
) -> None:
    """Compile the pipeline of `marco run`, unchanged, into a package of Kubeflow Pipelines or Vertex AI (schema 2.1).

    Data, steps of training and a run's label are parameters of the package, with the preset's as defaults.

    Example: marco compile --preset paper --site k8s/site.yaml --data gs://BUCKET/marco --root gs://BUCKET/runs
    --image REGISTRY/marco@sha256:… --output marco.yaml
    """
    from pipelines import compilation, configuration

    vertex = target is options.Target.vertex
    compile_for = compilation.compile_for_vertex if vertex else compilation.compile_for_kubeflow
    changes = [*(change or []), *([f"cluster.image={image}"] if image else [])]
    loaded = configuration.load(preset, changes, data, site)
    steps = compile_for(loaded, root, output)
    typer.echo(f"{steps} steps in {output}; image {loaded.cluster.image}")
    if "@sha256:" not in loaded.cluster.image:
        typer.echo("note: name the image by its digest; behind a tag it can change, and finished steps would be reused")
