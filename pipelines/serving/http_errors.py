"""How requests are refused: every answer is `{"error": …}`, one line, with a status that says whose fault it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipelines.serving.batcher import Busy
from pipelines.serving.limits import RequestError


async def _refused(request: Request, error: RequestError) -> Response:
    return JSONResponse({"error": str(error)}, error.status)


async def _not_of_the_protocol(request: Request, error: RequestValidationError) -> Response:
    """FastAPI's own answer is a 422 that repeats what was sent."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"error": f"malformed request: {where}: {first['msg']}"[:500]}, 400)


async def _http_error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


async def _busy(request: Request, error: Busy) -> Response:
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})


HANDLERS: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
    RequestError: _refused,
    RequestValidationError: _not_of_the_protocol,
    HTTPException: _http_error,
    Busy: _busy,
}
