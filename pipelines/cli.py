"""The `marco` command. Each subcommand lives in `pipelines/commands/` and imports what it needs when it runs."""

from __future__ import annotations

import os
import warnings

import typer

from marco_model.errors import exit_status
from pipelines.commands import (
    compare,
    compile,
    data_import,
    data_ingest,
    data_inspect,
    data_synthesize,
    deploy,
    deploy_batch,
    explain,
    models,
    monitor_check,
    monitor_reference,
    predict,
    relabel_export,
    relabel_merge,
    released,
    run,
    schedule,
    serve,
    submit,
    tflite,
    train,
)

app = typer.Typer(
    help="Train, judge, deploy and use the MARCO classifier of protein-crystallization images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Make, import, check and describe sets of scored images.", no_args_is_help=True)
app.add_typer(data, name="data")
relabel = typer.Typer(help="Have experts label anew what disagrees most with a model.", no_args_is_help=True)
app.add_typer(relabel, name="relabel")
deployments = typer.Typer(help="Deploy published models to an endpoint of Vertex AI.", no_args_is_help=True)
app.add_typer(deployments, name="deploy")
monitor = typer.Typer(help="Watch whether images still look as they did.", no_args_is_help=True)
app.add_typer(monitor, name="monitor")
registered = typer.Typer(help="List, promote and take back versions of a registered model.", no_args_is_help=True)
app.add_typer(registered, name="models")
app.command("run")(run.run)
app.command("predict")(predict.predict)
app.command("explain")(explain.explain)
app.command("compare")(compare.compare)
app.command("released")(released.released)
app.command("compile")(compile.compile_)
app.command("submit")(submit.submit)
app.command("schedule")(schedule.schedule)
app.command("serve")(serve.serve)
app.command("tflite")(tflite.tflite)
app.command("train")(train.train)
deployments.command("push")(deploy.push)
deployments.command("status")(deploy.status)
deployments.command("promote")(deploy.promote)
deployments.command("rollback")(deploy.rollback)
deployments.command("batch")(deploy_batch.batch)
monitor.command("reference")(monitor_reference.reference)
monitor.command("check")(monitor_check.check)
registered.command("list")(models.list_)
registered.command("promote")(models.promote)
registered.command("rollback")(models.rollback)
data.command("import")(data_import.import_)
data.command("ingest")(data_ingest.ingest)
data.command("inspect")(data_inspect.inspect)
data.command("synthesize")(data_synthesize.synthesize)
relabel.command("export")(relabel_export.export)
relabel.command("merge")(relabel_merge.merge)


def main() -> None:
    """Runs `marco`; an expected error becomes one line on stderr and an exit status."""
    # What TensorFlow and Google's libraries say about CUDA and Python versions at every start helps nobody here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore", FutureWarning)
    with exit_status():
        app()


if __name__ == "__main__":
    main()
