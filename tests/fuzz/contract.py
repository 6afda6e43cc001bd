"""The contract of what is fuzzed: it returns, or raises `InputError`, in one line and not an endless one.

Any other exception, more than `MOST_SECONDS` of computing and more than `MOST_GROWTH` of memory are findings, which
`violation` names.
"""

import contextlib
import dataclasses
import functools
import random
import resource
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from marco_model import errors

MOST_SECONDS = 10.0
"""Of the processor, for one input: other processes of the machine do not count."""
MOST_GROWTH = 512 << 20
"""Bytes by which the memory of the process may grow after the first input."""
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Target:
    """`run` takes an input. `modules`: whose coverage guides and is reported. `tokens`: words of the inputs' language.

    `mutate`, if given, changes an input and knows its structure.
    """

    run: Callable[[bytes], None]
    modules: tuple[str, ...]
    tokens: tuple[str, ...] = ()
    most_bytes: int = 4096
    mutate: Callable[[bytes, random.Random], bytes] | None = None


def violation(target: Target, data: bytes) -> tuple[str, str]:
    """Returns how an input breaks the contract, as a name for its kind and as text; two empty texts if it does not."""
    started = time.process_time()
    try:
        target.run(data)
    except errors.InputError as error:
        text = str(error)
        if len(text) > errors.MAX_CHARACTERS or len(text.splitlines()) > 1:
            return f"message-{_place(error)}", f"{len(text)} characters in {len(text.splitlines())} lines: {text[:300]}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"{type(error).__name__}-{_place(error)}", traceback.format_exc(limit=-12)[-4000:]
    if (seconds := time.process_time() - started) > MOST_SECONDS:
        return f"slow-{round(seconds, -1):.0f}", f"{seconds:.1f} s of the processor"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    if (growth := peak - _first_peak.setdefault(target.run, peak)) > MOST_GROWTH:
        return f"growth-{growth >> 27}", f"grew by {growth >> 20} MiB"
    return "", ""


_first_peak: dict[object, int] = {}
"""Bytes of memory after the first input of each target, which imports what it needs."""


def _place(error: BaseException) -> str:
    """Returns the last place in the project's own packages that an error passed, `MODULE-FUNCTION`."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename)]
    return f"{Path(frames[-1].filename).stem}-{frames[-1].name}" if frames else "elsewhere"


def _is_own(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in (
        "marco_model", "marco_data", "marco_scoring", "components", "pipelines",
    )  # fmt: skip


@functools.cache
def scratch() -> Path:
    """Returns a folder of this process."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    _kept.append(folder)  # It is removed with this object.
    return Path(folder.name)


_kept: list[Any] = []


@contextlib.contextmanager
def file(content: bytes, name: str) -> Iterator[Path]:
    path = scratch() / name
    path.write_bytes(content)
    try:
        yield path
    finally:
        for other in scratch().iterdir():
            if other.is_file():
                other.unlink()
