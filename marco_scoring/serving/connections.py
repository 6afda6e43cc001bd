"""What senders may take of `marco serve` before the application sees their requests: connections, time and memory.

uvicorn waits for headers and for readers without end, and accepts connections without limit. `connection_type` adds
limits to its HTTP protocol; `BodyLimit` refuses bodies that are too long or too slow, alone or together.
"""

import asyncio
import collections
import contextlib
import dataclasses
import logging
import re
import socket
import time
from collections.abc import Mapping
from typing import Any

import h11
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http import flow_control, h11_impl

HEADER_SECONDS = 10
"""Within which the headers of a request must arrive, from the connection or from their first byte on."""

HEADER_BYTES = 1 << 14
"""Most bytes of the headers of a request, with its first line."""

PATIENCE = 60
"""Seconds to wait for the next byte of a body, or until an answer is read: a sender that vanished would otherwise keep
others out."""

SLOWEST_RATE = 16_384
"""Bytes per second that a body must arrive with, after the first `PATIENCE` seconds."""

SMALL_CHUNKS, CHUNK = 1000, 1024
"""How many chunks a body may have beside one for so many of its bytes: each takes as long as many bytes."""

SEND_BUFFER = 1 << 17
"""Bytes of answers that the system keeps of a connection until they are read; by itself it would keep megabytes."""

REFUSED_PATIENCE = 2
"""Seconds to wait for the next byte of a body that is refused already."""

_SHARE = 0.75
"""Of the bytes in flight, which one sender may take at most, so that another still finds room."""

_DISCARDED = 8
"""Times the limit of a body that is read and thrown away once it is refused."""

BACKLOG = 100
"""Connections that the system keeps until they are accepted. asyncio accepts as many before it looks at any."""

_OTHER_FILES = 64 + 2 * BACKLOG
"""Files that are open beside the connections: libraries, the log, and connections just accepted or about to close."""


def allow(connections: int) -> int:
    """Returns how many connections may be open at a time: `connections`, or fewer where the system allows fewer files.

    Raises the process's own limit of open files as far as that is needed and allowed.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= most:
        return connections
    with contextlib.suppress(ValueError, OSError):
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES))


def connection_type(most: int) -> type[asyncio.Protocol]:
    """Returns uvicorn's protocol of a connection, of which at most `most` are open at a time.

    A new connection beyond that takes the place of the one that has been waiting longest for its sender: for a request,
    for the rest of it, or until its answer is read. A connection is closed if the headers of a request take more than
    `HEADER_SECONDS`, or if an answer is not read for `PATIENCE` seconds.
    """
    return type("Connection", (_Connection,), {"most": most})


class _Parser(h11.Connection):
    """Takes headers of more than `HEADER_BYTES`, and a body of very many small chunks, for malformed ones.

    h11 limits only headers that are not complete yet, and many bytes may come at once.
    """

    _chunks = _bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            lines = (event.method + event.target, *(name + value for name, value in event.headers))
            if sum(len(line) + len(":\r\n") for line in lines) > HEADER_BYTES:
                raise h11.RemoteProtocolError("too long headers")
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > SMALL_CHUNKS + self._bytes / CHUNK:
                raise h11.RemoteProtocolError("too many small chunks")
        return event


class _Flow(flow_control.FlowControl):
    """Reads little after a request until it is answered; uvicorn reads more each time that a request is asked for.

    It goes on reading until something has been sent ahead, for else it would not notice that the sender has gone.
    """

    def __init__(self, transport: asyncio.Transport, parser: h11.Connection) -> None:
        super().__init__(transport)
        self._parser = parser

    def resume_reading(self) -> None:
        if self._parser.their_state is not h11.DONE or not self._parser.trailing_data[0]:
            super().resume_reading()


class _Connection(h11_impl.H11Protocol):
    most: int

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.conn = _Parser(h11.SERVER, HEADER_BYTES)
        self.flow = _Flow(transport, self.conn)
        with contextlib.suppress(OSError):  # The sender may have gone already.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._deadline: asyncio.TimerHandle | None = None
        self._reading_deadline: asyncio.TimerHandle | None = None
        self._waiting_since = time.monotonic()
        if len(self.connections) > self.most:
            others = [other for other in self.connections if isinstance(other, _Connection) and other is not self]
            waiting = [other for other in others if other.waits()]
            oldest = min(waiting, key=lambda other: other._waiting_since, default=self)
            oldest.transport.abort()
            self.connections.discard(oldest)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting_for_headers()
        elif self._deadline is None:
            self._await_headers()

    def on_response_complete(self) -> None:
        self._waiting_since = time.monotonic()
        super().on_response_complete()
        self.flow.resume_reading()  # What was read already may be the beginning of a request.

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting_for_headers()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_deadline = self.loop.call_later(PATIENCE, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()

    def send_400_response(self, msg: str) -> None:
        with contextlib.suppress(h11.LocalProtocolError):  # Another answer has begun.
            super().send_400_response(msg)
        self.transport.close()

    def waits(self) -> bool:
        """Whether the server waits for this connection's sender, and not the sender for the server."""
        unread = self.transport.get_write_buffer_size() > 0
        return unread or self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting_for_headers(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Repetitions(logging.Filter):
    """Lets a message of the log pass at most `MOST` times in `SECONDS`, so that senders cannot fill a disk with it."""

    MOST, SECONDS = 10, 60.0

    def __init__(self) -> None:
        super().__init__()
        self._since = float("-inf")
        self._counts: collections.Counter[Any] = collections.Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a message may pass: the text without its arguments decides whether two are the same."""
        if record.created - self._since > self.SECONDS:
            self._since = record.created
            self._counts.clear()
        key = (record.name, record.levelno, str(record.msg))
        # Texts with values of their own may not fill the memory either.
        self._counts[key if len(self._counts) < 1000 else ""] += 1
        if self._counts[key] == self.MOST:
            record.msg = f"{record.msg} (if it comes again within {self.SECONDS:.0f} s, it is left out)"
        return self._counts[key] <= self.MOST


class WithoutQuery(logging.Filter):
    """Leaves out what follows the path of a request in the access log: no route reads it, and it may hold a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns True, with the paths among the record's arguments cut."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        record.args = tuple(
            re.sub(r"\?.*", "?***", value, flags=re.DOTALL) if isinstance(value, str) else value for value in arguments
        )
        return True


@dataclasses.dataclass
class _Body:
    """What was read of a body of `sender`, `size` bytes; `left`: the sender has gone."""

    sender: str
    messages: collections.deque[Message] = dataclasses.field(default_factory=collections.deque)
    size: int = 0
    left: bool = False


class BodyLimit:
    """Answers 413, 503 or 408 instead of the application.

    413: a body is longer than `limit` bytes, whether its length was announced or not. 503: the bodies of all requests
    not answered yet would exceed `in_flight` bytes (at least `limit`); the text, JSON and images made of a body take a
    few times as much memory; those of one sender may take `_SHARE` of that. A request's bytes count as they
    arrive, so that a sender who announces much and sends nothing keeps nobody out. 408: a body stalls or trickles.
    """

    def __init__(self, app: ASGIApp, limit: int, in_flight: int) -> None:
        self._app = app
        self._limit = limit
        self._in_flight = in_flight
        self._share = max(limit, int(_SHARE * in_flight))
        self._bytes: collections.Counter[str] = collections.Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(client[0] if (client := scope.get("client")) else "")

        async def replayed() -> Message:
            return body.messages.popleft() if body.messages else await receive()

        try:
            refusal = await self._read(body, dict(scope["headers"]), receive)
            if refusal:
                self._count(body, 0)
                reads_on = refusal.status_code != 408 and b"expect" not in dict(scope["headers"])
                await self._refuse(refusal, reads_on, receive, send)
            elif not body.left:
                await self._app(scope, replayed, send)
        finally:
            self._count(body, 0)

    def _count(self, body: _Body, size: int) -> None:
        self._bytes[body.sender] += size - body.size
        if not self._bytes[body.sender]:
            del self._bytes[body.sender]
        body.size = size

    async def _read(self, body: _Body, headers: Mapping[bytes, bytes], receive: Receive) -> JSONResponse | None:
        """Reads a body to its end, or returns why it is refused; sets `body.left` if the sender is gone."""
        announced = headers.get(b"content-length", b"0")
        if refusal := self._refusal(int(announced[:18]) if announced.isdigit() else 0, body):
            return refusal
        more, started = True, time.monotonic()
        while more:
            seconds = min(PATIENCE, started + PATIENCE + body.size / SLOWEST_RATE - time.monotonic())
            try:
                message = await asyncio.wait_for(receive(), max(0, seconds))
            except asyncio.TimeoutError:
                return _refusal(408, f"the request's body did not arrive within {PATIENCE} s")
            if message["type"] == "http.disconnect":
                body.left = True
                return None
            more = message.get("more_body", False)
            size = body.size + len(message.get("body", b""))
            if refusal := self._refusal(size, body):
                body.messages = collections.deque([message])
                return refusal
            body.messages.append(message)
            self._count(body, size)
        return None

    async def _refuse(self, refusal: JSONResponse, reads_on: bool, receive: Receive, send: Send) -> None:
        """Answers at once and, if it `reads_on`, ends later: a sender cut off while it sends misses the answer."""
        await send({"type": "http.response.start", "status": refusal.status_code, "headers": refusal.raw_headers})
        await send({"type": "http.response.body", "body": refusal.body, "more_body": True})
        read, more, deadline = 0, reads_on, time.monotonic() + PATIENCE
        while more and read <= _DISCARDED * self._limit and time.monotonic() < deadline:
            try:
                message = await asyncio.wait_for(receive(), REFUSED_PATIENCE)
            except asyncio.TimeoutError:
                break
            read += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": b""})

    def _refusal(self, size: int, body: _Body) -> JSONResponse | None:
        if size > self._limit:
            return _refusal(413, f"the request's body has more than {self._limit} bytes; send fewer images at once")
        others, own = self._bytes.total() - body.size, self._bytes[body.sender] - body.size
        if others + size > self._in_flight or own + size > self._share:
            return _refusal(503, f"requests of {others} bytes are being answered already; try again later")
        return None


def _refusal(status: int, reason: str) -> JSONResponse:
    later = {"retry-after": "1"} if status == 503 else {}
    return JSONResponse({"error": reason}, status, {"connection": "close", **later})
