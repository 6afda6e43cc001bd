"""The `marco` command. Its subcommands are in `pipelines/commands/`, and import what they need when they run."""

import contextlib
import importlib
import io
import os
import sys
import warnings
from typing import Annotated, Any

import typer.core

import marco_model
from marco_model import errors, recipe
from pipelines.commands import options, run, score

_GROUPS = {
    "data": "Make, import, check and describe sets of scored images.",
    "relabel": "Have experts relabel the images that disagree most with a model.",
    "deploy": "Deploy published models to an endpoint of Vertex AI.",
    "cluster": "Look at the cluster that packages run on.",
    "monitor": "Watch whether images still look as they did.",
    "models": "List, promote and take back versions of a registered model.",
}


_STATUSES = (
    "Exit status: 0 done. 1 done, but for files that are listed; or the run that was followed failed. 2 wrong input, "
    "with its fix. 3 trained, but not blessed. 4 an alarm. 69 a service failed. 70 a bug. 74 a full disk, or files "
    "that cannot be read or written. 130, 143 stopped by Ctrl-C or SIGTERM. 141 whoever read the output is gone. "
    "docs/exit_statuses.md says what is written then."
)


class _Group(typer.core.TyperGroup):
    """A group whose commands are in the module of its name, which is imported when the group is used."""

    def list_commands(self, context: Any) -> list[str]:
        if not self.commands:
            module = importlib.import_module(f"pipelines.commands.{self.name}")
            self.commands = typer.main.get_group(module.app).commands
        return super().list_commands(context)

    def get_command(self, context: Any, name: str) -> Any:
        self.list_commands(context)
        return super().get_command(context, name)


_display_type: Any = getattr(typer.core.TyperOption, "display_type_rich", None)


def _type_of_value(option: typer.core.TyperOption, ctx: Any) -> Any:
    """Returns the type that help shows; Typer 0.29 and later write `<bool>` behind an option that takes no value."""
    return None if option.is_flag else _display_type(option, ctx)


if _display_type:
    typer.core.TyperOption.display_type_rich = _type_of_value  # type: ignore[method-assign, assignment]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, epilog=_STATUSES)
app.command("run")(run.run)
app.command("predict")(score.predict)
app.command("explain")(score.explain)
app.command("compare")(run.compare)
app.command("released")(score.released)
app.command("compile")(run.compile_)
app.command("submit")(run.submit)
app.command("schedule")(run.schedule)
app.command("serve")(score.serve)
app.command("tflite")(score.tflite)
app.command("train")(run.train)
app.command("ui")(run.ui)
for _name, _help in _GROUPS.items():
    app.add_typer(typer.Typer(cls=_Group, help=_help, no_args_is_help=True), name=_name)


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


_PATIENCE = 25.0
"""Seconds from a signal to the end of a command that does not end by itself: less than a pod has until it is killed."""


def main() -> None:
    """Runs `marco`; an expected error or a signal becomes one line on stderr and an exit status."""
    # TensorFlow and Google's libraries print warnings about CUDA and Python versions at every start.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    recipe.set_tensorflow_defaults()
    warnings.simplefilter("ignore", FutureWarning)
    # Of metadata that no score depends on. Set here, since images are opened in threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # A file's name need not be UTF-8, and pipes on Windows take few letters.
    if isinstance(sys.stdout, io.TextIOWrapper):
        with contextlib.suppress(OSError):  # Of a pipe that took the place of a file: the change is made all the same.
            sys.stdout.reconfigure(errors="backslashreplace")
    with errors.exit_status(), options.stopped_by_signals(patience=_PATIENCE):
        for argument in sys.argv[1:]:
            errors.refuse_credentials(argument, "an argument")
        app()


if __name__ == "__main__":
    main()
