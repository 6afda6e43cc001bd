"""What a person sees of a running pipeline: a line a step; everything else goes to a log file."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import re
import sys
import time
from collections.abc import Iterator

_RUNNING = re.compile(r"Component (\S+) is running\.")
_FINISHED = re.compile(r"Component (\S+) is finished\.")
_FAILED = re.compile(r"Execution \d+ failed\.")
_CACHED = re.compile(r"A cached execution \d+ is used\.")
# Loggers whose INFO lines are meant for people.
_OURS = ("marco_model", "marco_data", "components", "pipelines")

# Loggers that would print past the root's handlers.
_WITH_HANDLERS = ("absl", "tensorflow", "mlflow")


class _StepLines(logging.Handler):
    """Turns TFX's log records, and our own, into lines on stderr."""

    def __init__(self, steps: int) -> None:
        super().__init__(logging.INFO)
        self._steps = steps
        self._number = 0
        self._begun = 0.0
        self._cached = False

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if _FAILED.fullmatch(message):
            return  # The exception that follows says why.
        if record.name.startswith(_OURS) or record.levelno >= logging.ERROR:
            self._print(f"      {message.splitlines()[0]}")
        elif match := _RUNNING.fullmatch(message):
            self._number += 1
            self._begun, self._cached = time.monotonic(), False
            self._print(f"[{self._number}/{self._steps}] {match[1]}")
        elif _CACHED.fullmatch(message):
            self._cached = True
        elif _FINISHED.fullmatch(message):
            done = "unchanged, reused" if self._cached else f"done in {time.monotonic() - self._begun:.0f} s"
            self._print(f"      {done}")

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step_lines(steps: int, log_file: pathlib.Path) -> Iterator[None]:
    """Shows a line a step on stderr while a pipeline of `steps` steps runs, and keeps the whole log in `log_file`."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.INFO)
    for name in _WITH_HANDLERS:
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True
    log_file.parent.mkdir(parents=True, exist_ok=True)
    whole = logging.FileHandler(log_file)
    whole.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = [whole, _StepLines(steps)]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = before
        root.setLevel(level)
        whole.close()
