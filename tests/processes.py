"""Processes that tests start: `marco` and functions, forked from a server that has imported the heavy libraries.

Importing TensorFlow takes 4 s of a core and TFX 13 s, which every process of a test would pay. The server imports them
once for all processes of a run of pytest and forks a child per request. A child is a process like any other: it has its
own environment, folder, arguments, output and exit status, and it is ended by real signals. Forking is safe because
the server imports only: no TensorFlow device, thread pool or gRPC channel exists in it.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
# What `marco predict` and the like import, and what `marco run` imports.
TENSORFLOW = ("tensorflow", "keras")
PIPELINE = (*TENSORFLOW, "tfx.v1", "mlflow", "matplotlib.pyplot", "sklearn.metrics")
_MESSAGE_BYTES = 1 << 17


def free_port() -> int:
    """Returns a port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Request(NamedTuple):
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    argv: list[str]
    environment: dict[str, str]
    folder: str


class Process:
    """A running child; `returncode` is None until `poll` or `wait` has seen its end, and -N after signal N."""

    def __init__(self, pid: int, status: int, output: Any, errors: Any) -> None:
        self.pid, self.returncode = pid, None
        self._status, self._output, self._errors = status, output, errors

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._reap()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit status; raises subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self._reap()
        return self.returncode

    def _reap(self) -> None:
        content = os.read(self._status, 16)
        os.close(self._status)
        assert content, "the fork server ended"
        self.returncode = int(content)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait_for_output(self, text: str, seconds: float = 60.0) -> None:
        """Waits until stdout contains `text`; fails with the output where the process ends first or takes longer."""
        until = time.monotonic() + seconds
        while text not in self.stdout:
            assert self.poll() is None and time.monotonic() < until, self.stdout + self.stderr
            time.sleep(0.01)

    @property
    def stdout(self) -> str:
        """What the process has written to stdout so far, unless `stdout` was passed."""
        return _content(self._output)

    @property
    def stderr(self) -> str:
        """What the process has written to stderr so far; empty where it goes to stdout."""
        return _content(self._errors)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        self.wait()


def start(
    function: Callable[..., Any],
    *arguments: Any,
    modules: Iterable[str] = TENSORFLOW,
    argv: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdout: int | None = None,
    merged: bool = False,
    before: Callable[[], None] | None = None,
) -> Process:
    """Starts `function(*arguments)` in a new process, which ends as a script with that one call would.

    It leads its own session and process group. `function` and `arguments` are pickled. `modules` are imported by the
    server, if they are not yet. `environment` replaces `os.environ`. `stdout` is a file descriptor; `merged` sends
    stderr to stdout. `before` is called in the child first.
    """
    if before:
        function, arguments = _call_both, (before, function, arguments)
    output = None if stdout is not None else tempfile.TemporaryFile()  # noqa: SIM115
    errors = None if merged else tempfile.TemporaryFile()  # noqa: SIM115
    request = _Request(
        function,
        arguments,
        ["marco", *argv],
        dict(os.environ if environment is None else environment),
        os.fspath(cwd or Path.cwd()),
    )
    out = output.fileno() if output else stdout
    reader, writer = os.pipe()
    try:
        pid = _server().request(tuple(modules), request, [out, errors.fileno() if errors else out, writer])
    finally:
        os.close(writer)
    return Process(pid, reader, output, errors)


def marco(*arguments: object, modules: Iterable[str] = TENSORFLOW, **options: Any) -> Process:
    """Starts the command `marco` with `arguments`; `options` are those of `start`."""
    return start(_marco, modules=["pipelines.cli", *modules], argv=[str(argument) for argument in arguments], **options)


def run_marco(*arguments: object, timeout: float = 600, **options: Any) -> Process:
    """Runs the command `marco` and returns the process that has ended; kills it after `timeout` seconds."""
    with marco(*arguments, **options) as process:
        process.wait(timeout)
    return process


def _call_both(before: Callable[[], None], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    before()
    function(*arguments)


def _marco() -> None:
    from pipelines import cli

    cli.main()


def _content(file: Any) -> str:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode() if file else ""


class _Client:
    """A connection to the server; the children that it asked for end with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # All processes of a run of pytest share a server: its first request starts it.
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
        folder = Path(tempfile.gettempdir(), f"marco-fork-server-{run}")
        folder.mkdir(mode=0o700, exist_ok=True)
        self._address, self._log = folder / "socket", folder / "log"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                self._socket.connect(str(self._address))
            except OSError:
                self._start()
        atexit.register(self._socket.close)

    def _start(self) -> None:
        self._address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening, self._log.open("wb") as log:
            listening.bind(str(self._address))
            listening.listen()
            self._socket.connect(str(self._address))
            command = [sys.executable, "-W", "ignore", "-m", "tests.processes", str(listening.fileno())]
            output = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            subprocess.Popen(command, cwd=ROOT, pass_fds=[listening.fileno()], start_new_session=True, **output)

    def request(self, modules: tuple[str, ...], request: _Request, descriptors: list[int]) -> int:
        """Returns the id of the child."""
        # The server unpickles the modules first, and the rest in the child, which alone may import more.
        message = pickle.dumps((modules, pickle.dumps(request)))
        assert len(message) < _MESSAGE_BYTES
        with self._lock:
            socket.send_fds(self._socket, [message], descriptors)
            answer = self._socket.recv(64)
        if not answer:
            raise RuntimeError(f"the fork server ended: {self._log.read_text()[-2000:]}")
        return int(answer)


_server = functools.cache(_Client)


def _serve(listening: socket.socket) -> _Request | None:
    """Forks a child per request until the last client has gone. Returns the request in a child, None in the server."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(waker)
    connections, statuses = [listening.accept()[0]], dict[int, tuple[socket.socket, int]]()
    while connections:
        ready, _, _ = select.select([listening, woken, *connections], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report_ends(statuses)
        if listening in ready:
            connections.append(listening.accept()[0])
        for connection in set(ready).intersection(connections):
            message, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 3)
            if not message:
                for pid, (client, _) in statuses.items():
                    if client is connection:
                        os.kill(pid, signal.SIGKILL)
                connections.remove(connection)
                connection.close()
                continue
            modules, request = pickle.loads(message)
            for name in modules:
                importlib.import_module(name)
            output, errors, status = descriptors
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
                os.setsid()
                connection.send(str(os.getpid()).encode())
                os.dup2(output, 1)
                os.dup2(errors, 2)
                sockets = (end.detach() for end in (listening, *connections))
                for descriptor in (*sockets, woken, waker, *(end for _, end in statuses.values()), *descriptors):
                    os.close(descriptor)
                return request
            statuses[pid] = connection, status
            os.close(output)
            os.close(errors)
    shutil.rmtree(Path(listening.getsockname()).parent)
    return None


def _report_ends(statuses: dict[int, tuple[socket.socket, int]]) -> None:
    while statuses:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _, descriptor = statuses.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def serve(descriptor: int) -> None:
    """Serves requests that come through a socket, and does the work of a request in the child."""
    pickled = _serve(socket.socket(fileno=descriptor))
    if pickled is None:
        return
    request: _Request = pickle.loads(pickled)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    sys.argv[:] = request.argv
    _run(request.function, request.arguments)


def _run(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Does what the interpreter does at the end of a script, but frees no modules, which takes seconds for TFX."""
    status: object = 0
    try:
        function(*arguments)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    for thread in threading.enumerate():
        # One that is not alive was to be started when a signal came.
        if thread.is_alive() and not thread.daemon and thread is not threading.main_thread():
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 255)


if __name__ == "__main__":
    from tests import processes  # Requests are pickled by this name.

    processes.serve(int(sys.argv[1]))
