"""The HTTP server of `marco serve`: KServe's V1 and V2 protocols and Vertex AI's routes as a FastAPI application.

Routes, statuses, documents and the names of metrics are those of KServe's own Python server (0.21), so that its clients
and probes work unchanged, with these differences: binary images are read, `load` and `unload` of the model repository
answer 501, since otherwise any sender could take the model away, and a malformed request is never a status 500.
`connections` bounds what senders may take before the application sees their requests.
"""

import asyncio
import contextlib
import copy
import functools
import logging
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

import fastapi
import prometheus_client
import uvicorn
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import marco_model
from marco_model import errors
from marco_scoring.serving import classify, connections, fair_queue, large_images, protocols

log = logging.getLogger("uvicorn.error")

Result = TypeVar("Result")

MOST_SECONDS = 60
"""After which the request of an image is answered with an error. Its work goes on, since nothing can interrupt a
decoder in a thread, but the limits of an image keep it short."""

LARGE_WORK = 20_000_000
"""Pixels times scans of an image beyond which it is decoded in another process, so that the others need not wait for
it: four times the pixels of the largest imagers."""

REFUSAL_SECONDS = 0.1
"""Before a request is answered of which nothing was scored: such requests cost little, and their sender could take a
core with thousands of them a second."""

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

WAITING = prometheus_client.Gauge("marco_waiting_images", "Images that wait to be scored", ["model_name"])
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
    versions: classify.Versions,
    name: str,
    host: str,
    port: int,
    concurrency: classify.Concurrency,
    limits: classify.Limits,
    vertex: protocols.VertexContainer,
    *,
    grace_seconds: int,
    reload_seconds: float,
    access_log: bool,
    bits: int | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then answers the requests under way, for `grace_seconds` at most.

    `name`: the model's in the routes. `vertex`: its routes answer too, as V1's `:predict` and readiness.
    `reload_seconds`: how often to look for a newer version of the model; 0 for never. `bits`: of the images, see
    `pictures.upright`. Raises `InputError` if there is no model.
    """
    classifier = versions.newest()
    assert classifier
    print(f"serving {classifier.name} at http://{host}:{port}/v1/models/{name}:predict", file=sys.stderr, flush=True)
    log_config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    for formatter in log_config["formatters"].values():
        formatter["fmt"] = f"%(asctime)s {formatter['fmt']}"
    log_config["filters"] = {
        "repetitions": {"()": connections.Repetitions},
        "paths": {"()": connections.WithoutQuery},
    }
    log_config["handlers"]["default"]["filters"] = ["repetitions"]
    # What asyncio says of broken connections is limited as uvicorn's messages are.
    log_config["loggers"]["asyncio"] = {"handlers": ["default"], "propagate": False}
    log_config["handlers"]["access"]["filters"] = ["paths"]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again at its end, where it would kill.
    with (
        ThreadPoolExecutor(concurrency.slots, thread_name_prefix="model") as pool,
        ThreadPoolExecutor(1, thread_name_prefix="large images") as large,
    ):
        scorer = Scorer(classifier, name, concurrency, (pool, large), bits)
        app = application(scorer, name, limits, vertex, lambda _: _following(scorer, versions, reload_seconds))
        uvicorn.run(
            connections.BodyLimit(
                app, limits.max_body_mb * classify.MEBIBYTE, limits.max_inflight_mb * classify.MEBIBYTE
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
    scorer: "Scorer",
    name: str,
    limits: classify.Limits,
    vertex: protocols.VertexContainer,
    lifespan: Callable[[fastapi.FastAPI], contextlib.AbstractAsyncContextManager[None]],
) -> fastapi.FastAPI:
    """Returns the application with all routes, within the context `lifespan`."""
    classes = scorer.classifier.classes

    async def check_name(request: fastapi.Request) -> None:
        if (requested := request.path_params.get("model_name", name)) != name:
            raise HTTPException(404, f"Model with name {requested} does not exist.")

    app = fastapi.FastAPI(
        title="marco serve",
        version=marco_model.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[fastapi.Depends(check_name)],
    )

    @app.post(f"/v1{MODEL}:predict")
    async def predict(request: fastapi.Request) -> fastapi.Response:
        with scorer.time("preprocess"):
            images = await read(request, v1_images, request.headers)
        outcomes = await score(images, request)
        return respond(request, protocols.v1_response(outcomes, classes))

    @app.post(f"/v2{MODEL}/infer")
    async def infer(request: fastapi.Request) -> fastapi.Response:
        with scorer.time("preprocess"):
            length = request.headers.get("inference-header-content-length")
            query = await read(request, protocols.read_v2_binary, length, limits)
        outcomes = await score(query.images, request)
        document = {
            "model_name": name,
            "model_version": scorer.classifier.name,
            "id": query.id or str(uuid.uuid4()),
            "parameters": None,
            "outputs": protocols.v2_response(query, outcomes, classes),
        }
        return respond(request, document)

    def v1_images(body: bytes, headers: Mapping[str, str]) -> list[classify.Instance]:
        return protocols.v1_images(protocols.event_data(headers, protocols.parse_json(body)), limits)

    async def read(request: fastapi.Request, reader: Callable[..., Result], *arguments: Any) -> Result:
        """Reads a body, a large one beside the loop, so that other requests need not wait for it."""
        parts = [part async for part in request.stream()]

        def read_whole() -> Result:
            body = b"".join(parts)
            parts.clear()  # To free its memory.
            return reader(body, *arguments)

        return await asyncio.to_thread(read_whole) if sum(map(len, parts)) > classify.MEBIBYTE else read_whole()

    async def score(images: list[classify.Instance], request: fastapi.Request) -> list[classify.Outcome]:
        """Scores images while their sender waits for it: what waits of a request that was given up costs the others."""
        scoring = asyncio.ensure_future(scorer.score(images, request.client.host if request.client else ""))
        leaving = asyncio.ensure_future(_leaves(request))
        try:
            await asyncio.wait((scoring, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not scoring.done():
                raise classify.RequestError("the sender has gone")  # Nobody reads it.
            return await scoring
        finally:
            leaving.cancel()
            scoring.cancel()

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
    for error in (classify.RequestError, fair_queue.Busy, HTTPException, Exception):
        app.add_exception_handler(error, _answer_error)
    return app


async def _leaves(request: fastapi.Request) -> None:
    """Returns when the sender of a request that was read has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _return(document: dict[str, Any]) -> fastapi.Response:
    return JSONResponse(document)


async def _refuse(reason: str) -> fastapi.Response:
    raise HTTPException(501, reason)


async def _answer_error(request: fastapi.Request, error: Exception) -> fastapi.Response:
    """Answers what a route raises: as JSON with an `error`."""
    if isinstance(error, classify.RequestError):
        await asyncio.sleep(REFUSAL_SECONDS)
        return JSONResponse({"error": str(error)}, error.status)
    if isinstance(error, fair_queue.Busy):
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})
    if isinstance(error, HTTPException):
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)
    return JSONResponse({"error": f"{type(error).__name__} : {error}"}, 500)


@contextlib.asynccontextmanager
async def _following(scorer: "Scorer", versions: classify.Versions, seconds: float) -> AsyncIterator[None]:
    """Gives `scorer` each newer version, for which it looks every so many `seconds`; 0 for never."""

    async def follow() -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                classifier = await asyncio.to_thread(versions.newest)
            except Exception as error:
                log.warning("The newest version is not served: %s", errors.one_line(error))
            else:
                if classifier:
                    log.info("Serving %s from now on.", classifier.name)
                    scorer.classifier = classifier

    task = asyncio.create_task(follow()) if seconds else None
    yield
    if task:
        task.cancel()


class Scorer:
    """Scores the images of requests, in which senders take turns, and counts what it does for Prometheus.

    `classifier` may be replaced by another one of the same classes, which scores the next image. `pools`: threads that
    score, and one for large images. These are prepared in another process, one at a time, so that nobody else waits for
    them.
    """

    def __init__(
        self,
        classifier: "marco_model.LoadedClassifier",
        name: str,
        concurrency: classify.Concurrency,
        pools: tuple[Executor, Executor],
        bits: int | None = None,
    ) -> None:
        self._bits = bits
        self.classifier = classifier
        self._name = name
        self._pool, self._large_pool = pools
        self._scoring = fair_queue.FairQueue(
            self._classify, slots=concurrency.slots, max_waiting=concurrency.max_waiting
        )
        self._preparing = fair_queue.FairQueue(self._prepare, slots=1, max_waiting=concurrency.max_waiting)
        WAITING.labels(name).set_function(lambda: self._scoring.waiting + self._preparing.waiting)

    async def _classify(self, image: bytes | classify.Prepared) -> classify.Outcome:
        return await _within_time(self._pool, classify.classify, self.classifier, image, self._bits)

    async def _prepare(self, image: bytes) -> classify.Prepared | classify.Outcome:
        """Returns the network's input made of a large image, or its outcome if there is no input."""
        preparation = self.classifier.preparation
        if not preparation:
            return await _within_time(self._large_pool, classify.classify, self.classifier, image, self._bits)
        arguments = image, preparation, self._bits, MOST_SECONDS
        try:
            network_input = await _within_time(self._large_pool, large_images.prepare, *arguments)
        except errors.InputError as error:
            return classify.Refused(str(error))
        return classify.Prepared(image, preparation, network_input)

    def time(self, stage: str) -> Any:
        """Returns a context that adds its duration to the histogram of a stage."""
        return STAGES[stage].labels(self._name).time()

    async def score(self, images: Sequence[classify.Instance], sender: str) -> list[classify.Outcome]:
        """Returns an outcome for each image, in order; what was refused before stays refused."""
        large = [image for image in images if isinstance(image, classify.Image) and image.work > LARGE_WORK]
        ordinary = [image for image in images if isinstance(image, classify.Image) and image.work <= LARGE_WORK]
        with self.time("predict"):
            scored = await asyncio.gather(
                self._scoring.submit([image.encoded for image in ordinary], sender),
                self._score_large(large, sender),
            )
        of_ordinary, of_large = map(iter, scored)
        outcomes = [
            image if isinstance(image, classify.Refused) else next(of_large if image.work > LARGE_WORK else of_ordinary)
            for image in images
        ]
        if all(isinstance(outcome, classify.Refused) for outcome in outcomes):
            await asyncio.sleep(REFUSAL_SECONDS)
        for outcome in outcomes:
            INSTANCES.labels(self._name, "refused" if isinstance(outcome, classify.Refused) else "scored").inc()
        return outcomes

    async def _score_large(self, images: Sequence[classify.Image], sender: str) -> list[classify.Outcome]:
        async def score_one(image: classify.Image) -> classify.Outcome:
            (prepared,) = await self._preparing.submit([image.encoded], sender)
            if isinstance(prepared, classify.Scored | classify.Refused):
                return prepared
            return (await self._scoring.submit([prepared], sender))[0]

        return list(await asyncio.gather(*map(score_one, images)))


async def _within_time(pool: Executor, work: Callable[..., Result], *arguments: Any) -> Result:
    """Returns the result of `work` in `pool`; raises `RequestError` if it takes too long."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(pool, work, *arguments), MOST_SECONDS)
    except (asyncio.TimeoutError, TimeoutError):
        reason = f"not scored within {MOST_SECONDS} s; try again later, or send smaller images"
        raise classify.RequestError(reason, 503) from None
