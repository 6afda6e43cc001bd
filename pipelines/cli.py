"""The `marco` command. Each subcommand lives in `pipelines/commands/` and imports what it needs when it runs."""

from __future__ import annotations

import os
import warnings
from typing import Annotated

import typer

import marco_model
from marco_model.errors import exit_status
from pipelines.commands import data, deploy, models, monitor, relabel, run, score, serve, submit

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Make, import, check and describe sets of scored images.", no_args_is_help=True)
app.add_typer(data_app, name="data")
relabel_app = typer.Typer(help="Have experts relabel the images that disagree most with a model.", no_args_is_help=True)
app.add_typer(relabel_app, name="relabel")
deploy_app = typer.Typer(help="Deploy published models to an endpoint of Vertex AI.", no_args_is_help=True)
app.add_typer(deploy_app, name="deploy")
monitor_app = typer.Typer(help="Watch whether images still look as they did.", no_args_is_help=True)
app.add_typer(monitor_app, name="monitor")
models_app = typer.Typer(help="List, promote and take back versions of a registered model.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.command("run")(run.run)
app.command("predict")(score.predict)
app.command("explain")(score.explain)
app.command("compare")(models.compare)
app.command("released")(score.released)
app.command("compile")(run.compile_)
app.command("submit")(submit.submit)
app.command("schedule")(submit.schedule)
app.command("serve")(serve.serve)
app.command("tflite")(score.tflite)
app.command("train")(run.train)
deploy_app.command("push")(deploy.push)
deploy_app.command("status")(deploy.status)
deploy_app.command("promote")(deploy.promote)
deploy_app.command("rollback")(deploy.rollback)
deploy_app.command("batch")(deploy.batch)
monitor_app.command("reference")(monitor.reference)
monitor_app.command("check")(monitor.check)
models_app.command("list")(models.list_)
models_app.command("promote")(models.promote)
models_app.command("rollback")(models.rollback)
data_app.command("import")(data.import_)
data_app.command("ingest")(data.ingest)
data_app.command("inspect")(data.inspect)
data_app.command("synthesize")(data.synthesize)
relabel_app.command("export")(relabel.export)
relabel_app.command("merge")(relabel.merge)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"marco {marco_model.__version__}")
        raise typer.Exit


@app.callback()
def marco(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, evaluate, deploy and use the MARCO classifier of protein-crystallization images."""


def main() -> None:
    """Runs `marco`; an expected error becomes one line on stderr and an exit status."""
    # TensorFlow and Google's libraries print warnings about CUDA and Python versions at every start.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore", FutureWarning)
    with exit_status():
        app()


if __name__ == "__main__":
    main()
