"""The `marco` command. Its subcommands are in `pipelines/commands/`, and import what they need when they run."""

import os
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

import marco_model
from marco_model import errors
from pipelines.commands import data, deploy, models, monitor, run, score

_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.run,
    "predict": score.predict,
    "explain": score.explain,
    "compare": models.compare,
    "released": score.released,
    "compile": run.compile_,
    "submit": run.submit,
    "schedule": run.schedule,
    "serve": score.serve,
    "tflite": score.tflite,
    "train": run.train,
}
_GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "data": (
        "Make, import, check and describe sets of scored images.",
        {"import": data.import_, "ingest": data.ingest, "inspect": data.inspect, "synthesize": data.synthesize},
    ),
    "relabel": (
        "Have experts relabel the images that disagree most with a model.",
        {"export": data.export, "merge": data.merge},
    ),
    "deploy": (
        "Deploy published models to an endpoint of Vertex AI.",
        {
            "push": deploy.push,
            "status": deploy.status,
            "promote": deploy.promote,
            "rollback": deploy.rollback,
            "batch": deploy.batch,
        },
    ),
    "monitor": (
        "Watch whether images still look as they did.",
        {"reference": monitor.reference, "check": monitor.check},
    ),
    "models": (
        "List, promote and take back versions of a registered model.",
        {"list": models.list_, "promote": models.promote, "rollback": models.rollback},
    ),
}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
for _name, (_help, _commands) in _GROUPS.items():
    _group = typer.Typer(help=_help, no_args_is_help=True)
    app.add_typer(_group, name=_name)
    for _subcommand, _command in _commands.items():
        _group.command(_subcommand)(_command)


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
    with errors.exit_status():
        app()


if __name__ == "__main__":
    main()
