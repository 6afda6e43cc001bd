"""KServe's model server around a classifier; the only module that imports kserve.

Of KServe come the routes and documents of both protocols, readiness and metadata, Prometheus's metrics, and the end of
requests under way at SIGTERM. Changed here is what would let a sender do harm, or would not fit images: see `_Data`,
`_NoRepository` and `_Server`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve import Model, ModelServer
from kserve.errors import InvalidInput
from kserve.logging import trace_logger
from kserve.model_server import app as kserve_app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.v1_endpoints import V1Endpoints
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException

from marco_scoring.serving import protocols
from marco_scoring.serving.batcher import Batcher, Busy
from marco_scoring.serving.body_limit import BodyLimit
from marco_scoring.serving.classify import Image, Limits, Refused, RequestError, Scored, classify


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


if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier

BATCH_PIXELS = 50_000_000
"""A batch has no more, unless it is one image: decoded, its images take 150 MB together."""
BATCH_IMAGES = Histogram(
    "marco_batch_images", "Images the model scored at once", ["model_name"], buckets=(1, 2, 4, 8, 16, 32, 64)
)
INSTANCES = Counter("marco_instances", "Instances answered", ["model_name", "outcome"])


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Where to listen and how to batch; `name` is the model's in the routes, `grace_seconds` the time to end in.

    `predict_route` and `health_route` are further paths of Vertex AI's; see `Batcher` for the rest.
    """

    name: str
    host: str
    port: int
    max_batch: int
    batch_wait_seconds: float
    max_waiting: int
    grace_seconds: int
    access_log: bool
    predict_route: str | None = None
    health_route: str | None = None


def serve(classifier: LoadedClassifier, options: ServerOptions, limits: Limits) -> None:
    """Serves until SIGTERM or SIGINT, then answers what is under way, for `grace_seconds` at most."""
    with ThreadPoolExecutor(1, thread_name_prefix="model") as pool:
        model = _Marco(classifier, options, limits, pool)
        server = _Server(options, limits)
        _add_routes(kserve_app, server, options)
        kserve_app.add_middleware(BodyLimit, limit=limits.max_body_bytes, in_flight=limits.max_inflight_bytes)
        server.start([model])


class _Marco(Model):  # type: ignore[misc]
    """The classifier as KServe's model; ready from the beginning, since it was loaded and warmed up before."""

    def __init__(
        self, classifier: LoadedClassifier, options: ServerOptions, limits: Limits, pool: ThreadPoolExecutor
    ) -> None:
        super().__init__(options.name)
        self.ready = True
        self._classifier = classifier
        self._limits = limits
        batch_images = BATCH_IMAGES.labels(options.name)

        async def work(images: list[bytes]) -> list[Scored | Refused]:
            batch_images.observe(len(images))
            return await asyncio.get_running_loop().run_in_executor(pool, classify, classifier, images)

        self._batcher: Batcher[bytes, Scored | Refused] = Batcher(
            work,
            max_items=options.max_batch,
            max_weight=BATCH_PIXELS,
            wait_seconds=options.batch_wait_seconds,
            max_waiting=options.max_waiting,
        )

    def get_input_types(self) -> list[dict[str, Any]]:
        """The metadata of the inputs in the V2 protocol."""
        return protocols.v2_inputs()

    def get_output_types(self) -> list[dict[str, Any]]:
        """The metadata of the outputs in the V2 protocol."""
        return protocols.v2_outputs(len(self._classifier.classes))

    def validate(self, payload: Any) -> Any:
        """Leaves the checks to `predict`."""
        return payload

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
        """Answers what `_Data.decode` made of a request."""
        classes, version = self._classifier.classes, self._classifier.name
        if not isinstance(payload, protocols.Request):
            images = protocols.v1_images(
                protocols.parse_json(payload) if isinstance(payload, bytes) else payload, self._limits
            )
            return protocols.v1_response(await self._answers(images), classes, version)
        outcomes = await self._answers(payload.images)
        return {
            "model_name": self.name,
            "model_version": version,
            "id": payload.id or str(uuid.uuid4()),
            "outputs": protocols.v2_response(payload, outcomes, classes, version),
        }

    async def _answers(self, images: list[Image | Refused]) -> list[Scored | Refused]:
        """Has what is an image scored, and puts the answers among what was refused."""
        good = [image for image in images if isinstance(image, Image)]
        scored = iter(await self._batcher.submit([one.encoded for one in good], [one.pixels for one in good]))
        answers = [next(scored) if isinstance(image, Image) else image for image in images]
        for answer in answers:
            INSTANCES.labels(self.name, "refused" if isinstance(answer, Refused) else "scored").inc()
        return answers


class _Data(DataPlane):  # type: ignore[misc]
    """Reads V2 requests with our functions, and has no request end as the server's failure.

    KServe's own reader takes a V2 request's binary data for UTF-8, which no image is, and what it does not expect, such
    as a CloudEvent without data, comes out of it as a KeyError and hence as a 500.
    """

    def __init__(self, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        self._limits = limits

    def decode_inference_request(self, body: Any, headers: Any, model_name: str) -> protocols.Request:
        if isinstance(body, bytes):
            return protocols.read_v2_binary(body, headers.get("inference-header-content-length"), self._limits)
        return protocols.read_v2(body.model_dump(exclude_none=True), self._limits)

    def decode(self, *arguments: Any, **options: Any) -> Any:
        return _or_refused(lambda: super(_Data, self).decode(*arguments, **options))

    def encode(self, *arguments: Any, **options: Any) -> Any:
        return _or_refused(lambda: super(_Data, self).encode(*arguments, **options))


def _or_refused(act: Callable[[], Any]) -> Any:
    """Returns what `act` returns; whatever it raises is the request's fault."""
    try:
        return act()
    except RequestError:
        raise
    except InvalidInput as error:  # KServe logs its own with a traceback.
        raise RequestError(str(error)) from None
    except Exception as error:
        raise RequestError(f"malformed request: {type(error).__name__}: {str(error)[:200]}") from error


class _NoRepository(ModelRepositoryExtension):  # type: ignore[misc]
    """Answers 501 to load and unload: with KServe's own, any sender could take the model away."""

    async def load(self, model_name: str) -> None:
        raise NotImplementedError("The model is loaded once, when the server starts.")

    async def unload(self, model_name: str) -> None:
        raise NotImplementedError("The model is served until the server ends.")


class _Server(ModelServer):  # type: ignore[misc]
    """KServe's server with its one REST server bound to a host of our choice, KServe having it at 0.0.0.0."""

    def __init__(self, options: ServerOptions, limits: Limits) -> None:
        super().__init__(
            http_port=options.port,
            workers=1,
            enable_grpc=False,
            enable_latency_logging=False,
            grace_period=options.grace_seconds,
        )
        self.dataplane = _Data(limits, model_registry=self.registered_models)
        self.model_repository_extension = _NoRepository(model_registry=self.registered_models)
        self._options = options
        trace_logger.setLevel(logging.WARNING)  # Two lines a request otherwise.
        logging.getLogger("uvicorn.access").setLevel(logging.INFO if options.access_log else logging.WARNING)

    async def _serve(self) -> None:
        self._rest_server.config.host = self._options.host
        await super()._serve()


def _add_routes(app: FastAPI, server: ModelServer, options: ServerOptions) -> None:
    """Adds Vertex AI's routes, which answer as the V1 protocol's do, and how requests are refused."""
    endpoints = V1Endpoints(server.dataplane, server.model_repository_extension)

    async def predict(request: Request) -> Any:
        return await endpoints.predict(options.name, request)

    async def health() -> Any:
        return await endpoints.model_ready(options.name)

    if options.predict_route:
        app.add_api_route(options.predict_route, predict, methods=["POST"], response_model=None)
    if options.health_route:
        app.add_api_route(options.health_route, health, methods=["GET"], response_model=None)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
