"""The HTTP server of `marco serve`: KServe's V1 and V2 protocols and Vertex AI's routes as a FastAPI application.

Routes, statuses, documents and the names of metrics are those of KServe's own Python server (0.21), so that its clients
and probes work unchanged, with these differences: binary images are read, `load` and `unload` of the model repository
answer 501, since otherwise any sender could take the model away, and a malformed request is never a status 500.
`connections` bounds what senders may take before the application sees their requests.
"""

import asyncio
import copy
import functools
import signal
import uuid
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import fastapi
import prometheus_client
import uvicorn
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import marco_model
from marco_model import pixels
from marco_scoring.serving import batcher, classify, connections, options, protocols

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


def serve(
    classifier: "marco_model.LoadedClassifier",
    name: str,
    host: str,
    port: int,
    batching: options.Batching,
    limits: options.Limits,
    vertex: protocols.VertexContainer,
    *,
    grace_seconds: int,
    access_log: bool,
    bits: int | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then answers the requests under way, for `grace_seconds` at most.

    `name`: the model's in the routes. `vertex`: its routes answer too, as V1's `:predict` and readiness. `bits`: of the
    images, see `image_files.upright`.
    """
    log_config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    for formatter in log_config["formatters"].values():
        formatter["fmt"] = f"%(asctime)s {formatter['fmt']}"
    log_config["filters"] = {"repetitions": {"()": connections.Repetitions}}
    log_config["handlers"]["default"]["filters"] = ["repetitions"]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again at its end, where it would kill.
    with ThreadPoolExecutor(1, thread_name_prefix="model") as pool:
        app = application(classifier, name, batching, limits, vertex, pool, bits)
        uvicorn.run(
            connections.BodyLimit(
                app, limits.max_body_mb * options.MEBIBYTE, limits.max_inflight_mb * options.MEBIBYTE
            ),
            host=host,
            port=port,
            http=connections.connection_type(connections.allow(limits.max_connections)),
            ws="none",
            backlog=connections.BACKLOG,
            log_config=log_config,
            access_log=access_log,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=grace_seconds,
        )


def application(
    classifier: "marco_model.LoadedClassifier",
    name: str,
    batching: options.Batching,
    limits: options.Limits,
    vertex: protocols.VertexContainer,
    pool: Executor,
    bits: int | None = None,
) -> fastapi.FastAPI:
    """Returns the application with all routes; `pool` has one thread, in which the model scores."""
    classes, version = classifier.classes, classifier.name
    scorer = _Scorer(classifier, name, batching, pool, bits)

    async def check_name(request: fastapi.Request) -> None:
        if (requested := request.path_params.get("model_name", name)) != name:
            raise HTTPException(404, f"Model with name {requested} does not exist.")

    app = fastapi.FastAPI(
        title="marco serve",
        version=marco_model.__version__,
        docs_url=None,
        redoc_url=None,
        dependencies=[fastapi.Depends(check_name)],
    )

    @app.post(f"/v1{MODEL}:predict")
    async def predict(request: fastapi.Request) -> fastapi.Response:
        with scorer.time("preprocess"):
            document = protocols.event_data(request.headers, protocols.parse_json(await request.body()))
            images = protocols.v1_images(document, limits)
        outcomes = await scorer.score(images)
        return respond(request, protocols.v1_response(outcomes, classes, version))

    @app.post(f"/v2{MODEL}/infer")
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

    @app.get("/metrics")
    async def metrics(request: fastapi.Request) -> fastapi.Response:
        accept = request.headers.get("accept", "")
        try:
            encode, content_type = prometheus_client.exposition.choose_encoder(accept)
        except (TypeError, ValueError):  # A version that is not a number.
            encode, content_type = prometheus_client.exposition.choose_encoder("")
        return fastapi.Response(encode(prometheus_client.REGISTRY), headers={"content-type": content_type})

    ready = {"name": name, "ready": True}
    documents: dict[str, dict[str, Any]] = {
        "/": {"status": "alive"},
        "/v1/models": {"models": [name]},
        f"/v1{MODEL}": ready,
        "/v2": {"name": "marco", "version": marco_model.__version__, "extensions": ["binary_tensor_data"]},
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2/models": {"models": [name]},
        f"/v2{MODEL}": {"name": name, "versions": None, "platform": "", **protocols.v2_tensors(len(classes))},
        f"/v2{MODEL}/ready": ready,
    }
    if vertex.health_route:
        documents[vertex.health_route] = ready
    if vertex.predict_route:
        app.add_api_route(vertex.predict_route, predict, methods=["POST"])
    for path, document in documents.items():
        app.add_api_route(path, functools.partial(_return, document))
    for (method, path), reason in UNSUPPORTED.items():
        app.add_api_route(path, functools.partial(_refuse, reason), methods=[method])
    for error in (classify.RequestError, batcher.Busy, HTTPException, Exception):
        app.add_exception_handler(error, _answer_error)
    return app


async def _return(document: dict[str, Any]) -> fastapi.Response:
    return JSONResponse(document)


async def _refuse(reason: str) -> fastapi.Response:
    raise HTTPException(501, reason)


async def _answer_error(request: fastapi.Request, error: Exception) -> fastapi.Response:
    """Answers what a route raises: as JSON with an `error`."""
    if isinstance(error, classify.RequestError):
        return JSONResponse({"error": str(error)}, error.status)
    if isinstance(error, batcher.Busy):
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})
    if isinstance(error, HTTPException):
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)
    return JSONResponse({"error": f"{type(error).__name__} : {error}"}, 500)


class _Scorer:
    """Scores the images of requests in batches and counts what it does for Prometheus."""

    def __init__(
        self,
        classifier: "marco_model.LoadedClassifier",
        name: str,
        batching: options.Batching,
        pool: Executor,
        bits: int | None,
    ) -> None:
        self._name = name
        batch_images = BATCH_IMAGES.labels(name)

        async def work(images: list[bytes]) -> list[classify.Outcome]:
            batch_images.observe(len(images))
            return await asyncio.get_running_loop().run_in_executor(pool, classify.classify, classifier, images, bits)

        self._batcher: batcher.Batcher[bytes, classify.Outcome] = batcher.Batcher(
            work,
            max_items=batching.max_batch,
            max_weight=pixels.MAX_PIXELS,
            wait_seconds=batching.batch_wait_ms / 1000,
            max_waiting=batching.max_waiting,
        )

    def time(self, stage: str) -> Any:
        """Returns a context that adds its duration to the histogram of a stage."""
        return STAGES[stage].labels(self._name).time()

    async def score(self, images: Sequence[classify.Instance]) -> list[classify.Outcome]:
        """Returns an outcome for each image, in order; what was refused before stays refused."""
        readable = [image for image in images if isinstance(image, classify.Image)]
        with self.time("predict"):
            scored = await self._batcher.submit(
                [image.encoded for image in readable], [image.pixels for image in readable]
            )
        scores = iter(scored)
        outcomes = [next(scores) if isinstance(image, classify.Image) else image for image in images]
        for outcome in outcomes:
            INSTANCES.labels(self._name, "refused" if isinstance(outcome, classify.Refused) else "scored").inc()
        return outcomes
