"""The errors that a command ends with in one line instead of a traceback, and how other errors become one of them."""

import contextlib
import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


MAX_CHARACTERS = 1000
"""Of the message of an `InputError`."""


class InputError(ValueError):
    """Input, configuration or environment is not as expected.

    The message names the problem, the value received and the fix, in one line. It may quote what anybody wrote: breaks
    of lines become spaces, credentials are left out, and a message of more than `MAX_CHARACTERS` loses its middle.
    """

    exit_status = 2

    def __init__(self, message: object = "") -> None:
        text, half = " ".join(str(message).splitlines()), MAX_CHARACTERS // 2 - 3
        if len(text) > MAX_CHARACTERS:
            # What is cut in two is not known as a secret any more; what is far longer takes long to look through.
            begin, end = (redacted(part) for part in (text[: 10 * half], text[-10 * half :]))
            text = f"{begin[:half]} [..] {end[-half:]}"
        super().__init__(redacted(text))


class DivergedError(InputError):
    """The training loss is no longer finite."""


class ClusterError(RuntimeError):
    """A service failed, or another process of a distributed training is gone; the message says how to continue."""

    exit_status = 69


class Interrupted(BaseException):
    """Work was stopped by the signal number `signal`; the message says what is kept and how to continue.

    It is no `Exception`, so that code that survives any damaged file does not take a signal for one.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


# Before a host: a user and a password, which may hold slashes. In a query: what logs in, or signs as for a bucket. In a
# header, as libraries quote one that they cannot send. The part of a proxy's password that is taken for a port.
_USER = re.compile(r"""(://)(?:[^\s/?#"'<>\\]*|[^\s/?#:@]*:(?!\d+[/?#])[^\s"'<>\\@]*)@""")
_QUERY = re.compile(
    r"""([?&#](?:[\w.-]*(?:token|secret|passw(?:or)?d|signature|sig|credential|api_?key|access_?key(?:_?id)?)|key)=)"""
    r"""[^&\s"'<>\\]+""",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"""(header value:? +(?:b?(?P<quote>['"])|(?=\S)))(?(quote).*?(?=(?P=quote))|\S+)"""
    r"""|((?:Bearer|Basic) +)(?=\S*\d)[\w.~+/-]{8,}=*"""
)
_PORT = re.compile(r"(nonnumeric port: ')[^']*")
HIDDEN = "***"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but line breaks and tabulators."""


def redacted(text: str) -> str:
    """Returns `text` with credentials in URIs and headers replaced by `HIDDEN`: passwords, tokens, signatures."""
    text = _HEADER.sub(lambda match: f"{match[1] or match[3]}{HIDDEN}", _redacted_uris(text))
    return _PORT.sub(rf"\1{HIDDEN}", text)


def _redacted_uris(text: str) -> str:
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", text))


def printable(text: object) -> str:
    """Returns a text as a terminal may get it: control characters, as in names of files, show as `\\x1b`."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(text))


def refuse_credentials(text: str, name: str) -> None:
    """Raises `InputError` if a URI in `text` holds credentials; `name` says what the text is."""
    if _redacted_uris(text) != text:
        word = next(word for word in text.split() if _redacted_uris(word) != word)
        raise InputError(
            f"{name} holds credentials ({one_line(word)}), which would end in logs and artifacts; leave them out, "
            "and give those for MLflow as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, on a cluster by "
            "cluster.secrets"
        )


received_signals: list[int] = []
"""The signals that were to stop this command; a library may have taken one for an error of its own."""


def end_if_stopped() -> None:
    """Raises `Interrupted` if a signal was to stop this command, before something incomplete is taken for whole."""
    if received_signals:
        raise Interrupted(f"stopped by {signal.Signals(received_signals[0]).name}", received_signals[0])


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """Returns the text of an error in one line of at most `limit` characters; the error's type where it has no text.

    Credentials in URIs are left out.
    """
    text = redacted(" ".join(str(error).split()))[:limit]
    return text or type(error).__name__


@contextlib.contextmanager
def translated(kind: type[Exception], message: str, *errors: type[BaseException]) -> Iterator[None]:
    """Raises `kind` with `message` instead of an error of the types `errors`.

    "{}" in `message` is replaced with the error's text in one line. `InputError` and `ClusterError` pass unchanged, so
    that the innermost message is the one that is shown.
    """
    try:
        yield
    except (InputError, ClusterError):
        raise
    except errors as error:
        raise kind(message.replace("{}", one_line(error))) from error


def result_or_reason(work: Callable[[list[Item]], Iterable[Result]], items: list[Item]) -> list[Result | str]:
    """Returns the result of each item, or the reason, as text, why `work` refuses it with an `InputError`.

    `work` takes all items at once. If it refuses them, each is tried alone, so that a bad one affects only itself.
    """
    try:
        return list(work(items))
    except InputError as error:
        if len(items) == 1:
            return [str(error)]
    return [result for item in items for result in result_or_reason(work, [item])]


EXTRAS: dict[str, str] = {
    **dict.fromkeys(("fastapi", "prometheus_client", "starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("cronsim", "google", "grpc", "kfp", "kubernetes", "requests", "urllib3"), "cluster"),
}
"""The extra of pyproject.toml that brings a package which the light install leaves out; `train` for all others."""


@contextlib.contextmanager
def naming_extra() -> Iterator[None]:
    """Raises `InputError`, with the extra to install, for a package that the light install leaves out.

    The extra `train` is the work of `make env`: pip alone finds no TFX for most systems and Pythons.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = str(error.name)
        package = module.partition(".")[0]
        if package.startswith(("marco_", "components", "pipelines")):
            raise
        extra = EXTRAS.get(package, "train")
        missing = f"this needs {module}, which is not installed"
        if extra == "train":
            raise InputError(
                f"{missing}; set up TensorFlow and the pipeline, on Linux on x86_64 (docs/runtimes.md), in the "
                "project's folder: make env && . .venv/bin/activate"
            ) from error
        raise InputError(
            f"{missing}; install the project with its extra `{extra}` (docs/runtimes.md), in its folder: "
            f"pip install '.[{extra}]'"
        ) from error


STORAGE_STATUS, BUG_STATUS = 74, 70
"""Exit statuses for a full disk or another failure of the storage (`EX_IOERR`), and for a bug (`EX_SOFTWARE`)."""
_PIPE_STATUS = 128 + 13
"""As SIGPIPE would end the process, which Python ignores."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room, or give another place"),
    **dict.fromkeys(_REFUSED, "give this account access, or give another place"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "see that the disk or its server is well, and run again"),
}
# How TensorFlow, SQLite and Arrow name them, whose errors have no number.
_WORDS = {
    **{os.strerror(number): number for number in _FIXES if number not in (errno.EACCES, errno.EPERM)},
    f"; {os.strerror(errno.EACCES)}": errno.EACCES,
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
}


def storage_fix(error: BaseException | None) -> str:
    """Returns how to fix the failure of the storage that `error` or its cause is; empty if it is another error.

    An `InputError` about input that may not be read is not a failure of the storage.
    """
    refused = isinstance(error, InputError)
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and not isinstance(error, InputError):
            number = next((number for words, number in _WORDS.items() if words in str(error)), None)
        if number in _FIXES and not (refused and number in _REFUSED):
            return _FIXES[number]
        error = error.__cause__
    return ""


_UNSENDABLE = (
    "a token, a password or a cookie holds a line break or another character that a request cannot carry; fix it where "
    "you keep it: the environment, a file, kubectl's configuration"
)


@contextlib.contextmanager
def exit_status() -> Iterator[None]:
    """Ends the process on an error, with one line on stderr for each that is expected, a traceback for others.

    The exit statuses are those of docs/exit_statuses.md. Ends quietly if whoever read the output is gone.
    """
    try:
        try:
            with naming_extra():
                yield
        finally:
            sys.stdout.flush()  # Its failure would otherwise appear when the interpreter ends, as a traceback.
    except (InputError, ClusterError) as error:
        _end(f"error: {error}", STORAGE_STATUS if storage_fix(error) else error.exit_status)
    except Interrupted as stopped:
        _end(str(stopped), 128 + stopped.signal)
    except KeyboardInterrupt:
        _end("", 130)
    except BrokenPipeError:
        _end("", _PIPE_STATUS)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer ends it with 1.
            _end("", _PIPE_STATUS)
        raise
    except Exception as error:
        if isinstance(error, ValueError) and "header value" in str(error):  # Of http.client and requests.
            _end(f"error: {_UNSENDABLE}", InputError.exit_status)
        if fix := storage_fix(error):
            _end(f"error: {_failure(error)}; {fix}", STORAGE_STATUS)
        if isinstance(error, (ConnectionError, TimeoutError)):
            _end(f"error: {_failure(error)}; run again when the service is well", ClusterError.exit_status)
        if isinstance(error, OSError):
            _end(f"error: {_failure(error)}; see that it is there and was not changed meanwhile", STORAGE_STATUS)
        _end(traceback.format_exc(), BUG_STATUS)


def _failure(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return one_line(error)


def _end(text: str, status: int) -> NoReturn:
    with contextlib.suppress(OSError):
        if text:
            print(printable(redacted(text).rstrip()), file=sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # What can't be written would be tried again, and reported, when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


@contextlib.contextmanager
def expected_errors() -> Iterator[None]:
    """Raises an `InputError`, `ClusterError` or `OSError` of a Beam worker again under its own type.

    A runner returns only the error's text, perhaps with the name of the step.
    """
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        for kind in (InputError, ClusterError):
            if match := re.search(rf"^(?:\w+\.)*{kind.__name__}: (.+?)(?: \[while running .*)?$", text, re.MULTILINE):
                raise kind(match[1]) from error
        if match := re.search(r"Error: \[Errno (\d+)\] ([^:\n[]+)(?:: '([^'\n]+)')?", text):
            raise OSError(int(match[1]), match[2].strip(), match[3]) from error
        raise
