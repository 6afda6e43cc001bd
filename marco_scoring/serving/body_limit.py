"""Refuses request bodies that are too long, alone or together, before they fill the memory. Needs no web framework.

ASGI middleware: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_DISCARDED = 8
"""Times the limit that is read and thrown away, because a sender that is cut off while sending misses the answer."""

PATIENCE = 60
"""Seconds to wait for the next byte of a body: a sender that vanished would otherwise keep others out."""


class BodyLimit:
    """Answers 413, 503 or 408 instead of the application.

    413: a body is longer than `limit` bytes, whether its length was announced or not. 503: the bodies of all requests
    not answered yet would exceed `in_flight` bytes (at least `limit`); the text, JSON and images made of a body take a
    few times as much memory. A request's bytes count as they arrive, so that a sender who announces much and sends
    nothing keeps nobody out. 408: a body stalls.
    """

    def __init__(self, app: App, limit: int, in_flight: int) -> None:
        self._app = app
        self._limit = limit
        self._in_flight = in_flight
        self._bytes = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handles one request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body()
        try:
            refusal = await self._read(body, dict(scope["headers"]), receive)
            if refusal:
                await _refuse(refusal, send)
            elif not body.left:
                await self._app(scope, body.replay(receive), send)
        finally:
            self._bytes -= body.size

    async def _read(self, body: _Body, headers: Mapping[bytes, bytes], receive: Receive) -> _Refusal | None:
        """Reads a body to its end unless it is refused; sets `body.left` if the sender is gone."""
        announced = headers.get(b"content-length", b"0")
        refusal = self._refusal(int(announced[:18]) if announced.isdigit() else 0, body)
        read, more = 0, not (refusal and b"expect" in headers)
        while more and read <= _DISCARDED * self._limit:
            try:
                message = await asyncio.wait_for(receive(), PATIENCE)
            except asyncio.TimeoutError:
                return refusal or _Refusal(408, f"no more of the request's body arrived for {PATIENCE} s")
            if message["type"] == "http.disconnect":
                body.left = True
                return None
            read += len(message.get("body", b""))
            more = message.get("more_body", False)
            refusal = refusal or self._refusal(read, body)
            self._bytes -= body.size
            body.messages.append(message)
            body.size = read
            if refusal:
                body.messages.clear()
                body.size = 0
            self._bytes += body.size
        return refusal

    def _refusal(self, size: int, body: _Body) -> _Refusal | None:
        if size > self._limit:
            return _Refusal(413, f"the request's body has more than {self._limit} bytes; send fewer images at once")
        others = self._bytes - body.size
        if others + size > self._in_flight:
            return _Refusal(503, f"requests of {others} bytes are being answered already; try again later")
        return None


class _Refusal(NamedTuple):
    status: int
    reason: str


@dataclasses.dataclass
class _Body:
    """What was read of a body, `size` bytes; `left`: the sender has gone."""

    messages: collections.deque[Message] = dataclasses.field(default_factory=collections.deque)
    size: int = 0
    left: bool = False

    def replay(self, receive: Receive) -> Receive:
        """Returns a function that returns the messages of the body, and then those of `receive`."""

        async def messages() -> Message:
            return self.messages.popleft() if self.messages else await receive()

        return messages


async def _refuse(refusal: _Refusal, send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if refusal.status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": refusal.reason}).encode()})
