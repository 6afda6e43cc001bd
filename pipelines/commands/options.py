"""The options that several commands share, each defined once, and groups of options that a command takes as one value.

The fields of a dataclass such as `VertexOptions` are options: their types are annotated as a command's parameters, or
their metadata are arguments of `typer.Option`. A command under `grouped` that has a parameter of this type has these
options, and gets their values as one.
"""

import atexit
import contextlib
import dataclasses
import functools
import inspect
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from rich import console, segment

from marco_data import image_files
from marco_model import InputError, errors, model_directory as directories, store

ImagePaths = Annotated[
    list[str], typer.Argument(metavar="PATH…", help="Images (JPEG, PNG, TIFF, BMP) and folders of them.")
]
Model = Annotated[str | None, typer.Option(help="A model's folder or gs:// URI. Without it: the published classifier.")]
Names = Annotated[
    str,
    typer.Option(
        help="Where images lie, if the usual file names do not say it: a regular expression with groups such as "
        "(?P<plate>…) and (?P<well>…), or a .csv file with path,plate,well,… (docs/data.md)."
    ),
]
Bits = Annotated[
    int | None,
    typer.Option(
        min=8, max=16, help="How many of 16 bits the camera uses, for grey TIFF and PNG. Without it: by each image."
    ),
]
Average = Annotated[
    int,
    typer.Option(
        help="Score 2, 4 or 8 mirrored and turned views of each image and take their mean, for as many times the work. "
        "What that brings: docs/beyond-the-paper.md."
    ),
]
Preset = Annotated[str, typer.Option(help="A preset's name, or a .yaml file of your own.")]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value of the preset, such as recipe.steps=500. May be repeated."),
]
LeaveOut = Annotated[
    str | None,
    typer.Option(
        metavar="institution|imager[=NAME,…]",
        help="Also train once without each institution or imager, and tell how much worse a model is on images of one "
        "that it never saw. A package needs the names; else they are found in the data (docs/beyond-the-paper.md).",
    ),
]
Tracking = Annotated[
    str,
    typer.Option(
        help="MLflow's URI, or a run's folder; by default MLFLOW_TRACKING_URI, or mlflow.db in this directory.",
        show_default=False,
    ),
]
ModelName = Annotated[
    str | None, typer.Option(help="The registered model; by default the only one there is, or marco.")
]

STDOUT = "-"
Target = Literal["kubeflow", "vertex"]
"""Where a package runs."""


@dataclasses.dataclass(frozen=True)
class VertexOptions:
    """A project and region of Vertex AI."""

    project: Annotated[str | None, typer.Option(help="Project of Google Cloud; by default the preset's.")] = None
    location: Annotated[str | None, typer.Option(help="Region, such as europe-west4; by default the preset's.")] = None
    api: Annotated[
        str | None, typer.Option(help="Another address of Vertex AI, such as a Private Service Connect endpoint's.")
    ] = None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command with an option for each field of the dataclasses among its parameters."""
    options: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if not dataclasses.is_dataclass(parameter.annotation):
            options.append(parameter)
            continue
        groups[parameter.name] = parameter.annotation
        for field in dataclasses.fields(parameter.annotation):
            kind = Annotated[field.type, typer.Option(**field.metadata)] if field.metadata else field.type
            options.append(parameter.replace(name=field.name, default=field.default, annotation=kind))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        command(**values)

    signature = inspect.Signature([option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options])
    # Typer reads both.
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def counted(count: int, noun: str) -> str:
    """Returns `1 image` or `2 images`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Prints to standard output or, with `err`, to stderr; control characters, as of a file's name, are escaped."""
    typer.echo(errors.printable(text), err=err, nl=nl)


class Terminal(console.Console):
    """Prints tables and text without markup; control characters, as of a value in a file, are escaped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, *arguments: Any, **options: Any) -> Iterator[segment.Segment]:
        """Yields what is printed."""
        for part in super().render(*arguments, **options):
            yield part if part.control else part._replace(text=errors.printable(part.text))


def output_file(parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """Raises `InputError`, before any work begins, if no file can be written where an option says; its callback.

    A link is followed; a device or a pipe needs only to be writable. The name of an image is refused too: a shell makes
    `--output *.jpg` one photograph to write and the others to read.
    """
    if value is not None and not store.is_stream(value) and not value.is_dir():
        option, names = f"{parameter.opts[0]} {value}", (value.name, os.path.realpath(value))
        if any(map(image_files.has_image_ending, names)):
            raise InputError(f"{option} has the ending of an image; give the file to write another name")
    return writable_file(parameter, value)


def writable_file(parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """As `output_file`, for a file that may be named as an image."""
    if value is None or str(value) == STDOUT:
        return value
    option = f"{parameter.opts[0]} {value}"
    if store.is_stream(value):
        if not os.access(value, os.W_OK):
            raise InputError(f"{option} cannot be written: Permission denied")
    elif value.is_dir():
        raise InputError(f"{option} is a folder; give the name of a file")
    else:
        _check_writable(Path(os.path.realpath(value)).parent, option)
    return value


def output_folder(parameter: typer.CallbackParam, value: Path) -> Path:
    """As `output_file`, for a folder that may exist."""
    option = f"{parameter.opts[0]} {value}"
    if value.exists() and not value.is_dir():
        raise InputError(f"{option} is a file; give a folder")
    _check_writable(Path(os.path.realpath(value)), option)
    return value


def new_folder(parameter: typer.CallbackParam, value: Path) -> Path:
    """As `output_file`, for a folder that must not exist, or be empty."""
    store.require_new_or_empty(value)
    _check_writable(store.folder_of_aside(value), f"{parameter.opts[0]} {value}")
    return value


def _check_writable(folder: Path, option: str) -> None:
    """Raises `InputError` if no file can be made in `folder`, or in the nearest folder above that exists."""
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not existing.is_dir():
        raise InputError(f"{option} cannot be written: {existing} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(f"{option} cannot be written: {existing}: {error.strerror or error}") from None


@contextlib.contextmanager
def stopped_by_signals(*, patience: float | None = None) -> Iterator[None]:
    """Raises `Interrupted` in the block at SIGTERM, and at SIGHUP, which a closed terminal sends; the second kills.

    SIGINT raises KeyboardInterrupt as ever. What leaves the block after a signal is `Interrupted`, too where a library
    took it for an error of its own.

    `patience`: seconds after a signal at which the process ends, whatever still runs in it, also after the block. Beam
    may wait for its workers without end when an exception comes between its steps. None to wait with it.
    """
    received = errors.received_signals

    def stop(number: int, frame: FrameType | None) -> None:
        if patience is not None and not received:
            deadline = threading.Timer(patience, _end, [number])
            deadline.daemon = True
            deadline.start()
        received.append(number)
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        signal.signal(number, signal.SIG_DFL)
        raise errors.Interrupted(f"stopped by {signal.Signals(number).name}", number)

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        # A signal may come while an object is deleted, where Python cannot raise.
        if not (received and isinstance(unraisable.exc_value, errors.Interrupted | KeyboardInterrupt)):
            unraisable_hook(unraisable)

    unraisable_hook, sys.unraisablehook = sys.unraisablehook, report
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]
    # Ignored, as under nohup, stays ignored.
    earlier = {number: signal.signal(number, stop) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield
    except errors.Interrupted:
        raise
    except BaseException as error:
        reported = isinstance(error, SystemExit) and error.code in (0, None, *(128 + number for number in received))
        if received and not reported:
            raise errors.Interrupted(f"stopped by {signal.Signals(received[0]).name}", received[0]) from error
        raise
    finally:
        received.clear()
        sys.unraisablehook = unraisable_hook
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _end(number: int) -> None:
    text = f"stopped by {signal.Signals(number).name}, before everything in the process had ended\n"
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
    os._exit(128 + number)


def model_directory(model: str | None, doing: str) -> Path:
    """Returns the folder of the SavedModel: `model`'s or, by default, the published classifier's, which is announced.

    A model on `gs://` is downloaded into a folder that is removed when the process ends. `doing` completes the
    announcement, such as `scoring with`. Raises `InputError` if there is no model.
    """
    if model is None:
        echo(f"no --model given: {doing} the classifier published in 2018", err=True)
        return directories.saved_model_directory(directories.published_directory())
    if not store.is_object(model):
        return directories.saved_model_directory(model)
    from components import published_models

    folder = tempfile.TemporaryDirectory(prefix="marco-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return published_models.download(model, Path(folder.name))
