"""The HTTP plumbing that the stand-ins share: a server on a free local port, requests, answers and routes."""

import contextlib
import dataclasses
import email.message
import io
import json
import re
import socket
import struct
import sys
import threading
import unittest.mock
import urllib.parse
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

import requests


@dataclasses.dataclass
class Request:
    """A request: `path` without percent-encoding, `query` with the last value of each parameter, `target` as sent."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: email.message.Message
    body: bytes
    target: str

    @classmethod
    def parse(cls, method: str, target: str, headers: email.message.Message, body: bytes) -> "Request":
        """Returns a request; `target` is path and query as they are sent."""
        parts = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(parts.query))
        return cls(method, urllib.parse.unquote(parts.path), query, headers, body, target)


@dataclasses.dataclass
class Answer:
    """An answer; the handler adds the length of `content`."""

    status: int
    content: bytes
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Service(Protocol):
    """What a stand-in implements; it is called from several threads at a time."""

    def respond(self, request: Request) -> Answer | None:
        """Returns the answer, None to close the connection without one."""


def json_answer(status: int, value: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Returns an answer with `value` as JSON."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def find_route(routes: list[tuple[str, str]], method: str, path: str) -> tuple[str, tuple[str, ...]] | None:
    """Returns the name and the groups of the first route whose pattern matches "METHOD path", None if none does.

    `routes` has pairs of a pattern and a name, which is usually that of a method of the service.
    """
    for pattern, name in routes:
        if match := re.fullmatch(pattern, f"{method} {path}"):
            return name, match.groups()
    return None


class Handler(BaseHTTPRequestHandler):
    """Reads a request, lets the service respond, and sends the answer on a connection that stays open."""

    protocol_version = "HTTP/1.1"
    # Sends head and body in one segment, so that neither waits for an acknowledgement of the other.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: "_Server"

    def answer_request(self) -> None:
        """Answers the request whose line and headers have been read."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.service.respond(Request.parse(self.command, self.path, self.headers, body))
        if answer is None:
            self.hang_up()
        else:
            self.send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = lambda self: self.answer_request()

    def send(self, answer: Answer, stop: int | None = None) -> None:
        """Sends an answer, its content up to the byte `stop`."""
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content[:stop])
        self.wfile.flush()

    def hang_up(self, reset: bool = False) -> None:
        """Closes the connection, with a TCP reset instead of an orderly end if `reset`."""
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
        self.connection.close()

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Several clients with several connections each, while this process is busy with other work.
    request_queue_size = 128
    service: Service

    def handle_error(self, request: object, client_address: object) -> None:
        """Reports nothing where a client gives up its connection; anything else is a fault of the stand-in."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(service: Service, handler: type[Handler] = Handler) -> Iterator[str]:
    """Yields the URL at which a service answers until the block ends."""
    with _Server(("127.0.0.1", 0), handler) as server:
        server.service = service
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextlib.contextmanager
def without_sockets(service: Service, url: str) -> Iterator[None]:
    """Lets a service answer what this process sends to its URL with `requests`, without a server and its sockets.

    This is for tests that send thousands of requests.
    """
    send = requests.Session.request

    def request(session, method, target, params=None, data=None, headers=None, **options):
        if not target.startswith(f"{url}/"):
            return send(session, method, target, params=params, data=data, headers=headers, **options)
        target = f"{target}?{urllib.parse.urlencode(params)}" if params else target
        message = email.message.Message()
        for name, value in (headers or {}).items():
            message[name] = value
        body = data.encode() if isinstance(data, str) else data or b""
        answer = service.respond(Request.parse(method.upper(), target.removeprefix(url), message, body))
        if answer is None:
            raise requests.exceptions.ConnectionError("the connection was closed")
        response = requests.Response()
        response.status_code, response.url, response.request = answer.status, target, requests.Request(method, target)
        response.headers.update(answer.headers)
        response.raw = io.BytesIO(answer.content)
        return response

    with unittest.mock.patch.object(requests.Session, "request", request):
        yield
