"""The errors that a command ends with in one line instead of a traceback, and how other errors become one of them."""

import contextlib
import errno
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class InputError(ValueError):
    """Input, configuration or environment is not as expected.

    The message names the problem, the value received and the fix, in one line.
    """


class DivergedError(InputError):
    """The training loss is no longer finite."""


class ClusterError(RuntimeError):
    """A service failed, or another process of a distributed training is gone; the message says how to continue."""


class Interrupted(Exception):
    """Training was stopped by the signal number `signal`, has saved its state and can be resumed."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


# Before a host: a user and a password, which may hold slashes. In a query: what logs in, or signs as for a bucket.
_USER = re.compile(r"""(://)(?:[^\s/?#"'<>\\]*|[^\s/?#:@]*:(?!\d+[/?#])[^\s"'<>\\@]*)@""")
_QUERY = re.compile(
    r"""([?&][\w.-]*(?:token|secret|passw(?:or)?d|signature|sig|credential|api_?key|access_?key(?:_?id)?)=)[^&\s"'<>\\]+""",
    re.IGNORECASE,
)
HIDDEN = "***"


def redacted(text: str) -> str:
    """Returns `text` with credentials in its URIs replaced by `HIDDEN`: user and password, tokens, signatures."""
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", text))


def refuse_credentials(text: str, name: str) -> None:
    """Raises `InputError` if a URI in `text` holds credentials; `name` says what the text is."""
    if redacted(text) != text:
        word = next(word for word in text.split() if redacted(word) != word)
        raise InputError(
            f"{name} holds credentials ({one_line(word)}), which would end in logs and artifacts; leave them out, "
            "and give those for MLflow as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, on a cluster by "
            "cluster.secrets"
        )


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
    """Raises `InputError`, with the extra to install, for a package that the light install leaves out."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = str(error.name)
        package = module.partition(".")[0]
        if package.startswith(("marco_", "components", "pipelines")):
            raise
        extra = EXTRAS.get(package, "train")
        raise InputError(
            f"this needs {module}, which is not installed; install the project with its extra `{extra}` "
            f"(docs/runtimes.md), in its folder: pip install '.[{extra}]'"
        ) from error


_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EFBIG, errno.ENOTDIR, errno.EISDIR)


@contextlib.contextmanager
def exit_status() -> Iterator[None]:
    """Ends the process on an expected error, with one line on stderr.

    Exit status: 2 for an `InputError`, 1 for a `ClusterError` and for a full disk or a refused file, and 128 + the
    signal's number, as in shells, for `Interrupted`.
    """
    try:
        with naming_extra():
            yield
    except (InputError, ClusterError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror}; make room, or give another place", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def expected_errors() -> Iterator[None]:
    """Raises an `InputError` or `ClusterError` of a Beam worker again under its own type.

    A runner returns only the error's text, perhaps with the name of the step.
    """
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        for kind in (InputError, ClusterError):
            if match := re.search(rf"^(?:\w+\.)*{kind.__name__}: (.+?)(?: \[while running .*)?$", text, re.MULTILINE):
                raise kind(match[1]) from error
        raise
