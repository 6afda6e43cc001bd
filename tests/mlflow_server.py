"""MLflow's own server as a process of a test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def running(arguments: Sequence[str], folder: Path, answers: Callable[[], bool], seconds: float) -> Iterator[None]:
    """Runs `python -m ARGUMENTS` in `folder` once `answers` is true, at most so many seconds later, and ends it.

    Its log is `folder`/log, and its artifacts are in `folder`/artifacts.
    """
    command = [sys.executable, "-m", *arguments, f"--artifacts-destination={folder}/artifacts"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        deadline = time.monotonic() + seconds
        while not answers():
            assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.3)
        yield
    finally:
        # Ends the whole process group, since the server has workers.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)
