"""Errors that the caller can fix, shown by the command line as one line without a traceback."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator


class InputError(ValueError):
    """Input, configuration or environment is not as expected.

    The message names the problem, the value received and the fix, in one line.
    """


class DivergedError(InputError):
    """The training loss is no longer finite."""


class ClusterError(RuntimeError):
    """Another process of a distributed training is gone; the message, in one line, says how to go on."""


class Interrupted(Exception):
    """Training was asked to stop, has saved its state and can be resumed; `signal` is the number of what asked."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """Returns the text of an error in one line of at most `limit` characters; the error's type where it has no text."""
    text = " ".join(str(error).split())[:limit]
    return text or type(error).__name__


@contextlib.contextmanager
def translated(kind: type[Exception], message: str, *errors: type[BaseException]) -> Iterator[None]:
    """Raises `kind` with `message` in the place of an error of `errors`; "{}" in `message` becomes the error's line.

    `InputError` and `ClusterError` pass as they are, so that the innermost message is the one that is shown.
    """
    try:
        yield
    except (InputError, ClusterError):
        raise
    except errors as error:
        raise kind(message.replace("{}", one_line(error))) from error


@contextlib.contextmanager
def exit_status() -> Iterator[None]:
    """Ends the process on an expected error, with one line on stderr.

    Exit status: 2 for an `InputError`, 1 for a `ClusterError`; 128 + the signal's number, as shells have it, where
    training was asked to stop and has saved its state.
    """
    try:
        yield
    except (InputError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)


@contextlib.contextmanager
def expected_errors() -> Iterator[None]:
    """Raises again what a worker of Beam raised of the kinds that are one line.

    A runner gives back its text alone, or with the name of the step.
    """
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        for kind in (InputError, ClusterError):
            if match := re.search(rf"^(?:\w+\.)*{kind.__name__}: (.+?)(?: \[while running .*)?$", text, re.MULTILINE):
                raise kind(match[1]) from error
        raise
