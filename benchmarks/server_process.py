"""`marco serve` as a process of its own, for measurements and tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path


class ServerProcess:
    """A running server: `url` is its root, `process` the process."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        self._log = log

    def said(self) -> str:
        """Returns all that it has written so far."""
        return self._log.read_text(errors="replace")

    def memory(self) -> int:
        """Returns the bytes of memory that it holds (resident set size)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the server has ended")

    def wait_until_ready(self, route: str, seconds: float) -> None:
        """Returns once `route` answers 200; raises `RuntimeError` with what the server said where it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + route, timeout=5):
                return
            time.sleep(0.1)
        raise RuntimeError(f"not ready within {seconds} s, status {self.process.poll()}:\n{self.said()}")

    def end(self, seconds: float = 60) -> int:
        """Asks it to end and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def free_port() -> int:
    """Returns a port that nothing listened to a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(
    *options: str, environment: Mapping[str, str] | None = None, ready: str = "/v1/models/marco", seconds: float = 300
) -> Iterator[ServerProcess]:
    """Runs `marco serve` with `options` at a free port until the block ends; enters it once `ready` answers 200.

    Where `environment` tells the port by `AIP_HTTP_PORT`, that is taken.
    """
    told = (environment or {}).get("AIP_HTTP_PORT")
    port = int(told) if told else free_port()
    command = [sys.executable, "-m", "pipelines.cli", "serve", *options, *(() if told else ("--port", str(port)))]
    with tempfile.NamedTemporaryFile(prefix="marco-serve-", suffix=".log") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
        server = ServerProcess(port, process, Path(log.name))
        try:
            server.wait_until_ready(ready, seconds)
            yield server
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
