"""The HTTP server of `marco serve`: KServe's V1 and V2 protocols and Vertex AI's routes as a FastAPI application.

Routes, statuses, documents and the names of metrics are those of KServe's own Python server (0.21), so that its clients
and probes work unchanged, with these differences: binary images are read, `load` and `unload` of the model repository
answer 501, since otherwise any sender could take the model away, and a malformed request is never a status 500.
"""

import asyncio
import copy
import dataclasses
import signal
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import fastapi
import prometheus_client
import uvicorn
from fastapi.responses import JSONResponse
from prometheus_client import exposition
from starlette.exceptions import HTTPException

import marco_model
from marco_scoring.serving import protocols
from marco_scoring.serving.batcher import Batcher, Busy
from marco_scoring.serving.body_limit import BodyLimit
from marco_scoring.serving.classify import Image, Limits, Refused, RequestError, Scored, classify

if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier

BATCH_PIXELS = 50_000_000
"""A batch has no more pixels, unless it is one image: decoded, its images take 150 MB together."""

KEEP_ALIVE_SECONDS = 65
"""Longer than the 60 seconds after which proxies usually drop an idle connection."""

MODEL = "/models/{model_name}"
UNSUPPORTED = {
    ("POST", f"/v1{MODEL}:explain"): "Explanations are not served; run marco explain.",
    ("GET", f"/v2{MODEL}/versions/{{version}}"): "Model versioning not supported yet.",
    ("GET", f"/v2{MODEL}/versions/{{version}}/ready"): "Model versioning not supported yet.",
    ("POST", f"/v2{MODEL}/versions/{{version}}/infer"): "Model versioning not supported yet.",
    ("POST", f"/v2/repository{MODEL}/load"): "The model is loaded once, when the server starts.",
    ("POST", f"/v2/repository{MODEL}/unload"): "The model is served until the server ends.",
}
"""Routes of the protocols that answer 501, and why."""

BATCH_IMAGES = prometheus_client.Histogram(
    "marco_batch_images", "Images the model scored at once", ["model_name"], buckets=(1, 2, 4, 8, 16, 32, 64)
)
INSTANCES = prometheus_client.Counter("marco_instances", "Instances answered", ["model_name", "outcome"])
STAGES = {
    stage: prometheus_client.Histogram(f"request_{stage}_seconds", help_text, ["model_name"])
    for stage, help_text in (
        ("preprocess", "Time to read a request"),
        ("predict", "Time to wait for the model and to score"),
        ("postprocess", "Time to write an answer"),
    )
}


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Where to listen and how to batch.

    Attributes:
        name: the model's name in the routes.
        grace_seconds: time to answer the requests under way at SIGTERM.
        predict_route: a further path that answers as V1's `:predict`, for Vertex AI.
        health_route: a further path that answers as V1's readiness, for Vertex AI.

    See `Batcher` for the rest.
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


def serve(classifier: "LoadedClassifier", options: ServerOptions, limits: Limits) -> None:
    """Serves until SIGTERM or SIGINT, then answers the requests under way, for `grace_seconds` at most."""
    log_config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    for formatter in log_config["formatters"].values():
        formatter["fmt"] = f"%(asctime)s {formatter['fmt']}"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again at its end, where it would kill.
    with ThreadPoolExecutor(1, thread_name_prefix="model") as pool:
        app = application(classifier, options, limits, pool)
        uvicorn.run(
            BodyLimit(app, limits.max_body_bytes, limits.max_inflight_bytes),
            host=options.host,
            port=options.port,
            log_config=log_config,
            access_log=options.access_log,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=options.grace_seconds,
        )


def application(
    classifier: "LoadedClassifier", options: ServerOptions, limits: Limits, pool: Executor
) -> fastapi.FastAPI:
    """Returns the application with all routes; `pool` has one thread, in which the model scores."""
    name, classes, version = options.name, classifier.classes, classifier.name
    scorer = _Scorer(classifier, options, pool)
    app = fastapi.FastAPI(title="marco serve", version=marco_model.__version__, docs_url=None, redoc_url=None)

    async def check_name(model_name: str) -> None:
        if model_name != name:
            raise HTTPException(404, f"Model with name {model_name} does not exist.")

    def add(method: str, path: str, answer: Callable[..., Awaitable[fastapi.Response]]) -> None:
        checks = [fastapi.Depends(check_name)] if "{model_name}" in path else []
        app.add_api_route(path, answer, methods=[method], dependencies=checks, response_model=None, name=path)

    def add_document(path: str, document: dict[str, Any]) -> None:
        async def answer() -> fastapi.Response:
            return JSONResponse(document)

        add("GET", path, answer)

    def add_unsupported(method: str, path: str, reason: str) -> None:
        async def refuse() -> fastapi.Response:
            raise HTTPException(501, reason)

        add(method, path, refuse)

    async def predict(request: fastapi.Request) -> fastapi.Response:
        with scorer.time("preprocess"):
            document = protocols.event_data(request.headers, protocols.parse_json(await request.body()))
            images = protocols.v1_images(document, limits)
        outcomes = await scorer.score(images)
        return respond(request, protocols.v1_response(outcomes, classes, version))

    async def infer(request: fastapi.Request) -> fastapi.Response:
        with scorer.time("preprocess"):
            length = request.headers.get("inference-header-content-length")
            query = protocols.read_v2_binary(await request.body(), length, limits)
        outcomes = await scorer.score(query.images)
        document = {
            "model_name": name,
            "model_version": version,
            "id": query.id or str(uuid.uuid4()),
            "parameters": None,
            "outputs": protocols.v2_response(query, outcomes, classes, version),
        }
        return respond(request, document)

    def respond(request: fastapi.Request, document: dict[str, Any]) -> fastapi.Response:
        with scorer.time("postprocess"):
            headers, document = protocols.event_response(request.headers, document, name)
            return JSONResponse(document, headers=headers)

    async def metrics(request: fastapi.Request) -> fastapi.Response:
        encode, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
        return fastapi.Response(encode(prometheus_client.REGISTRY), headers={"content-type": content_type})

    add_document("/", {"status": "alive"})
    add_document("/v1/models", {"models": [name]})
    add_document("/v2", {"name": "marco", "version": marco_model.__version__, "extensions": ["binary_tensor_data"]})
    add_document("/v2/health/live", {"live": True})
    add_document("/v2/health/ready", {"ready": True})
    add_document("/v2/models", {"models": [name]})
    add_document(f"/v2{MODEL}", {"name": name, "versions": None, "platform": "", **protocols.v2_tensors(len(classes))})
    for path in (f"/v1{MODEL}", f"/v2{MODEL}/ready", options.health_route):
        if path:
            add_document(path, {"name": name, "ready": True})
    for path in (f"/v1{MODEL}:predict", options.predict_route):
        if path:
            add("POST", path, predict)
    add("POST", f"/v2{MODEL}/infer", infer)
    add("GET", "/metrics", metrics)
    for (method, path), reason in UNSUPPORTED.items():
        add_unsupported(method, path, reason)
    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    return app


class _Scorer:
    """Scores the images of requests in batches and counts what it does for Prometheus."""

    def __init__(self, classifier: "LoadedClassifier", options: ServerOptions, pool: Executor) -> None:
        self._name = options.name
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

    def time(self, stage: str) -> Any:
        """Returns a context that adds its duration to the histogram of a stage."""
        return STAGES[stage].labels(self._name).time()

    async def score(self, images: Sequence[Image | Refused]) -> list[Scored | Refused]:
        """Returns an outcome for each image, in order; what was refused before stays refused."""
        readable = [image for image in images if isinstance(image, Image)]
        with self.time("predict"):
            scored = await self._batcher.submit(
                [image.encoded for image in readable], [image.pixels for image in readable]
            )
        scores = iter(scored)
        outcomes = [next(scores) if isinstance(image, Image) else image for image in images]
        for outcome in outcomes:
            INSTANCES.labels(self._name, "refused" if isinstance(outcome, Refused) else "scored").inc()
        return outcomes


def _error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> fastapi.Response:
    return JSONResponse({"error": reason}, status, headers)


async def _refuse(request: fastapi.Request, error: RequestError) -> fastapi.Response:
    return _error(error.status, str(error))


async def _refuse_busy(request: fastapi.Request, error: Busy) -> fastapi.Response:
    return _error(503, str(error), {"Retry-After": "1"})


async def _answer_http_error(request: fastapi.Request, error: HTTPException) -> fastapi.Response:
    return _error(error.status_code, str(error.detail), error.headers)


async def _answer_failure(request: fastapi.Request, error: Exception) -> fastapi.Response:
    return _error(500, f"{type(error).__name__} : {error}")


HANDLERS: dict[type[Exception], Callable[[fastapi.Request, Any], Awaitable[fastapi.Response]]] = {
    RequestError: _refuse,
    Busy: _refuse_busy,
    HTTPException: _answer_http_error,
    Exception: _answer_failure,
}
"""How what a route raises is answered: as JSON with an `error`."""
