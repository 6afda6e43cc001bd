"""Refuses requests whose body is too long, before it is kept. ASGI middleware that needs no framework.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import collections
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


_DISCARDED = 8
"""So many times the limit is read and thrown away, since a sender that is cut off while it sends misses the answer."""


class BodyLimit:
    """Answers 413 where a body is longer than `limit` bytes, whether its length was announced or not."""

    def __init__(self, app: App, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handles one request as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        too_long = announced.isdigit() and int(announced[:18]) > self._limit
        messages: collections.deque[Message] = collections.deque()
        size, more = 0, not (too_long and b"expect" in headers)
        while more and size <= _DISCARDED * self._limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > self._limit or too_long:
                too_long = True
                messages.clear()
            else:
                messages.append(message)
        if too_long:
            await self._refuse(send)
            return

        async def again() -> Message:
            return messages.popleft() if messages else await receive()

        await self._app(scope, again, send)

    async def _refuse(self, send: Send) -> None:
        body = json.dumps({"error": f"the request's body has more than {self._limit} bytes; send fewer images at once"})
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})
