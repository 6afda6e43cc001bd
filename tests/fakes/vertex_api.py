"""A stand-in for Vertex AI: its REST API, version v1, over HTTP, in Google's own messages.

Written from google-cloud-aiplatform 1.165.1 (`google/cloud/aiplatform_v1/`). Requests are read into those messages, so
a field that the API does not know is refused, and answers are written from them; the routes are held against the
client's own in tests/fakes/test_vertex_api.py. It keeps what is created and enforces the rules in the comments of
googleapis/googleapis at f8291d2b8, `google/cloud/aiplatform/v1/`: `endpoint_service.proto` and `endpoint.proto`
(traffic adds up to 100 or is empty, a deployed model with traffic cannot be undeployed unless it is the last, ids,
etags), `model_service.proto` (aliases). Ids can be used once, and names come back with the project's number. An
operation ends by itself after a few more requests; operations are listed in pages
(`google/longrunning/operations.proto`). It runs nothing: `score` answers for all models, `states` sets how jobs end.
"""

import base64
import contextlib
import re
import threading

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from tests.fakes import http_server

PROJECT, NUMBER, LOCATION = "crystals", "123456789", "europe-west4"
PAGE = 2
PENDING = 2
"""Requests after which an operation has ended."""


class Refusal(Exception):
    """An answer with an error status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


class VertexApi:
    """`models`: versions by the model's id. `endpoints`: messages by id. `jobs`: jobs and schedules by kind and id.

    `fault(index, method, path)` returns None, or a pair: what happens instead of the answer to request number `index`,
    an error status or `cut` for a closed connection, and whether it happens `before` or `after` the request was
    carried out. `watch()` is called after each request and each operation.
    `score(content, uri)` returns the prediction of the model at `uri`; it raises ArithmeticError for a broken
    container, ValueError for an image that the container refuses. `scoring`: the version, as a message, that scored
    last. `unstartable`: URIs of models whose container does not start. `states`: functions that change a job before it
    is returned, one per request; the last one is repeated.
    """

    def __init__(self):
        self.models, self.endpoints, self.operations, self.requests = {}, {}, {}, []
        self.jobs = {kind: {} for kind in _KINDS}
        self.unstartable, self.states = set(), []
        self.fault = lambda index, method, path: None
        self.watch = lambda: None
        self.score = lambda content, uri: {"scores": [1.0, 0.0, 0.0, 0.0], "class": "Clear"}
        self.turns, self.scoring, self._count, self._lock = {}, None, 0, threading.Lock()

    def respond(self, request):
        # Newer versions of Google's client write the @ of MODEL@VERSION as %40; `request.path` has @ for both.
        method, path = request.method, request.path
        with self._lock:
            fault = self.fault(len(self.requests), method, path)
            self.requests.append(f"{method} {path}")
            self._advance()
            if fault and fault[1] == "before":
                return _failure(fault[0])
            answer = self._answer(method, path, request.query, request.body)
            self.watch()
            return _failure(fault[0]) if fault else answer

    def _answer(self, method, path, query, body):
        path = re.sub(rf"^/v1/projects/({PROJECT}|{NUMBER})/locations/{LOCATION}/", "", path)
        route = http_server.find_route(_ROUTES, method, path)
        if route is None:
            return _error(404, f"{method} {path} is not part of the stand-in")
        name, groups = route
        try:
            result = getattr(self, name)(query, body, *groups)
        except Refusal as refusal:
            return _error(refusal.status, refusal.message)
        except json_format.ParseError as error:
            return _error(400, str(error), status="INVALID_ARGUMENT")
        return http_server.json_answer(
            200, result if isinstance(result, dict) else json_format.MessageToDict(result._pb)
        )

    # Operations

    def _begin(self, resource, effect):
        self._count += 1
        name = f"{_name(resource)}/operations/{self._count}"
        self.operations[name] = {"left": PENDING, "effect": effect, "error": None}
        return {"name": name}

    def _advance(self):
        for operation in self.operations.values():
            if operation["left"]:
                operation["left"] -= 1
                if not operation["left"]:
                    try:
                        operation["effect"]()
                    except Refusal as refusal:
                        operation["error"] = {"code": 9, "message": refusal.message}
                    self.watch()

    def _operation(self, name):
        operation = self.operations[name]
        return {
            "name": name,
            **({} if operation["left"] else {"done": True}),
            **({"error": operation["error"]} if operation["error"] else {}),
        }

    def get_operation(self, query, body, resource, number):
        name = f"{_name(resource)}/operations/{number}"
        if name not in self.operations:
            raise Refusal(404, f"{name} not found")
        return self._operation(name)

    def list_operations(self, query, body, resource):
        names = [name for name in self.operations if name.startswith(f"{_name(resource)}/")]
        begin = int(query.get("pageToken") or 0)
        following = str(begin + PAGE) if begin + PAGE < len(names) else ""
        page = [self._operation(name) for name in names[begin : begin + PAGE]]
        return {"operations": page, **({"nextPageToken": following} if following else {})}

    # Models

    def upload_model(self, query, body):
        request = _read(types.UploadModelRequest, body)
        model, parent = request.model, request.parent_model.rsplit("/", 1)[-1]
        identity = parent or request.model_id or str(1000 + len(self.models))
        if parent and parent not in self.models:
            raise Refusal(404, f"model {parent} not found")
        if not parent and (identity in self.models or self._runs(f"models/{identity}")):
            raise Refusal(409, f"model {identity} already exists")
        if not model.container_spec.image_uri or not model.artifact_uri.startswith("gs://"):
            raise Refusal(400, "image_uri and artifact_uri are required")
        _check_labels(model.labels)

        def effect():
            versions = self.models.setdefault(identity, [])
            model.name, model.version_id = _name(f"models/{identity}"), str(len(versions) + 1)
            model.version_aliases = [] if versions else ["default"]
            versions.append(model)

        return self._begin(f"models/{identity}", effect)

    def list_models(self, query, body):
        return _page(types.ListModelsResponse, "models", [versions[-1] for versions in self.models.values()], query)

    def get_model(self, query, body, identity):
        return self._version(identity)

    def list_versions(self, query, body, identity):
        if identity not in self.models:
            raise Refusal(404, f"model {identity} not found")
        return _page(types.ListModelVersionsResponse, "models", self.models[identity][::-1], query)

    def merge_aliases(self, query, body, identity):
        version = self._version(identity)
        for alias in _read(types.MergeVersionAliasesRequest, body).version_aliases:
            if not re.fullmatch(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9-]", alias):
                raise Refusal(400, f"{alias} is not a valid alias")
            for other in self.models[identity.partition("@")[0]]:
                other.version_aliases = [name for name in other.version_aliases if name != alias]
            version.version_aliases.append(alias)
        return version

    def _version(self, identity):
        model, _, number = identity.partition("@")
        for version in self.models.get(model, []):
            if number in (version.version_id, *version.version_aliases):
                return version
        raise Refusal(404, f"model {identity} not found")

    # Endpoints

    def create_endpoint(self, query, body):
        endpoint = _read(types.Endpoint, body)
        identity = query.get("endpointId") or str(2000 + len(self.endpoints))
        if identity in self.endpoints or self._runs(f"endpoints/{identity}"):
            raise Refusal(409, f"endpoint {identity} already exists")
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9]\d{0,8}", identity):
            raise Refusal(400, f"{identity} is not a valid id")
        _check_labels(endpoint.labels)

        def effect():
            endpoint.name, endpoint.etag = _name(f"endpoints/{identity}"), "1"
            self.endpoints[identity] = endpoint

        return self._begin(f"endpoints/{identity}", effect)

    def list_endpoints(self, query, body):
        return _page(types.ListEndpointsResponse, "endpoints", list(self.endpoints.values()), query)

    def get_endpoint(self, query, body, identity):
        if identity not in self.endpoints:
            raise Refusal(404, f"endpoint {identity} not found")
        return self.endpoints[identity]

    def update_endpoint(self, query, body, identity):
        endpoint, changes = self.get_endpoint(query, body, identity), _read(types.Endpoint, body)
        if changes.etag and changes.etag != endpoint.etag:
            raise Refusal(409, "the etag is an old one")
        fields = _update_fields(query)
        if not set(fields) <= {"traffic_split", "labels", "display_name", "description"}:
            raise Refusal(400, f"{fields} cannot be changed")
        if "traffic_split" in fields:
            _check_split(changes.traffic_split, _deployed_ids(endpoint))
        _check_labels(changes.labels)
        for field in fields:
            setattr(
                endpoint, field, dict(getattr(changes, field)) if "_" not in field or field == "traffic_split" else ""
            )
        self._renew_etag(endpoint)
        return endpoint

    def deploy_model(self, query, body, identity):
        endpoint, request = self.get_endpoint(query, body, identity), _read(types.DeployModelRequest, body)
        model, split = request.deployed_model, dict(request.traffic_split)
        version = self._version(model.model.rsplit("/", 1)[-1])
        if not re.fullmatch(r"\d{1,10}", model.id):
            raise Refusal(400, f"{model.id!r} is not a valid id")
        if model.id in _deployed_ids(endpoint) or self._runs(f"endpoints/{identity}", model.id):
            raise Refusal(409, f"deployed model {model.id} already exists")
        if not model.dedicated_resources.machine_spec.machine_type:
            raise Refusal(400, "machine_type is required")
        _check_split(split or {"0": 100}, {"0", *_deployed_ids(endpoint)})

        def effect():
            if version.artifact_uri in self.unstartable:
                raise Refusal(400, "the model server exited unexpectedly")
            if split:
                _check_split(split, {"0", *_deployed_ids(endpoint)})
            self._count += 1
            model.model, model.model_version_id = version.name, version.version_id
            model.create_time = {"seconds": 1767571200 + 60 * self._count}
            endpoint.deployed_models.append(model)
            if split:
                endpoint.traffic_split = {model.id if key == "0" else key: share for key, share in split.items()}
            self._renew_etag(endpoint)

        operation = self._begin(f"endpoints/{identity}", effect)
        self.operations[operation["name"]]["deployed"] = model.id
        return operation

    def undeploy_model(self, query, body, identity):
        endpoint, request = self.get_endpoint(query, body, identity), _read(types.UndeployModelRequest, body)
        if request.deployed_model_id not in _deployed_ids(endpoint):
            raise Refusal(404, f"deployed model {request.deployed_model_id} not found")

        def effect():
            removed, split = request.deployed_model_id, dict(endpoint.traffic_split)
            left = [model for model in endpoint.deployed_models if model.id != removed]
            if split.pop(removed, 0) and left:
                raise Refusal(400, f"deployed model {removed} has traffic")
            endpoint.deployed_models, endpoint.traffic_split = left, split if left else {}
            self._renew_etag(endpoint)

        return self._begin(f"endpoints/{identity}", effect)

    def predict(self, query, body, identity):
        """Answers by turns, so that each model has its share of a hundred requests."""
        endpoint = self.get_endpoint(query, body, identity)
        request = _read(types.PredictRequest, body)
        if not endpoint.traffic_split:
            raise Refusal(400, "the endpoint has no deployed model with traffic")
        turn = self.turns[identity] = self.turns.get(identity, 0) + 37
        shares = sorted(endpoint.traffic_split.items())
        slots = [key for key, share in shares for _ in range(share)]
        model = next(model for model in endpoint.deployed_models if model.id == slots[turn % 100])
        version = self.scoring = self._version(f"{model.model.rsplit('/', 1)[-1]}@{model.model_version_id}")
        try:
            predictions = [
                self.score(base64.b64decode(instance["image_bytes"]["b64"]), version.artifact_uri)
                for instance in json_format.MessageToDict(request._pb)["instances"]
            ]
        except ArithmeticError as error:
            raise Refusal(500, f"the container answered: {error}") from error
        except ValueError as error:
            raise Refusal(400, f"the container answered: {error}") from error
        return {
            "predictions": predictions,
            "deployedModelId": model.id,
            "model": model.model,
            "modelVersionId": model.model_version_id,
            "modelDisplayName": version.display_name,
        }

    def _renew_etag(self, endpoint):
        endpoint.etag = str(int(endpoint.etag) + 1)

    def _runs(self, resource, deployed=None):
        """Returns whether an operation on a resource is under way; with `deployed`, one that deploys this model."""
        return any(
            operation["left"]
            and name.startswith(f"{_name(resource)}/")
            and deployed in (None, operation.get("deployed"))
            for name, operation in self.operations.items()
        )

    # Pipelines, schedules, jobs

    def create_job(self, query, body, kind):
        job = _read(_KINDS[kind], body)
        self._count += 1
        identity = query.get("pipelineJobId") or str(3000 + self._count)
        if identity in self.jobs[kind]:
            raise Refusal(409, f"{kind} {identity} already exists")
        job.name = _name(f"{kind}/{identity}")
        if kind == "schedules":
            job.state = types.Schedule.State.ACTIVE
        self.jobs[kind][identity] = job
        return job

    def list_jobs(self, query, body, kind):
        response, field = _LISTS[kind]
        return _page(response, field, list(self.jobs[kind].values()), query)

    def get_job(self, query, body, kind, identity):
        if identity not in self.jobs[kind]:
            raise Refusal(404, f"{kind} {identity} not found")
        job = self.jobs[kind][identity]
        if self.states and kind != "schedules":
            update = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            update(job)
        return job

    def delete_job(self, query, body, kind, identity):
        self.get_job(query, body, kind, identity)
        del self.jobs[kind][identity]
        return self._begin(f"{kind}/{identity}", lambda: None)

    def cancel_job(self, query, body, kind, identity):
        self.jobs[kind][identity].state = 5 if kind != "pipelineJobs" else 7
        self.states = []
        return {}

    def update_schedule(self, query, body, identity):
        schedule, changes = self.get_job(query, body, "schedules", identity), _read(types.Schedule, body)
        for field in _update_fields(query):
            setattr(schedule, field, getattr(changes, field))
        return schedule

    def turn_schedule(self, query, body, identity, how):
        states = {"pause": types.Schedule.State.PAUSED, "resume": types.Schedule.State.ACTIVE}
        self.get_job(query, body, "schedules", identity).state = states[how]
        return {}


_KINDS = {
    "pipelineJobs": types.PipelineJob,
    "schedules": types.Schedule,
    "customJobs": types.CustomJob,
    "batchPredictionJobs": types.BatchPredictionJob,
}
_LISTS = {
    "pipelineJobs": (types.ListPipelineJobsResponse, "pipeline_jobs"),
    "schedules": (types.ListSchedulesResponse, "schedules"),
    "customJobs": (types.ListCustomJobsResponse, "custom_jobs"),
    "batchPredictionJobs": (types.ListBatchPredictionJobsResponse, "batch_prediction_jobs"),
}
_JOBS = f"({'|'.join(_KINDS)})"
_ID = "([^/:]+)"
_ROUTES = [
    (f"GET ([a-zA-Z]+/[^/]+)/operations/{_ID}", "get_operation"),
    ("GET ([a-zA-Z]+/[^/]+)/operations", "list_operations"),
    ("POST models:upload", "upload_model"),
    ("GET models", "list_models"),
    (f"GET models/{_ID}:listVersions", "list_versions"),
    (f"POST models/{_ID}:mergeVersionAliases", "merge_aliases"),
    (f"GET models/{_ID}", "get_model"),
    ("POST endpoints", "create_endpoint"),
    ("GET endpoints", "list_endpoints"),
    (f"GET endpoints/{_ID}", "get_endpoint"),
    (f"PATCH endpoints/{_ID}", "update_endpoint"),
    (f"POST endpoints/{_ID}:deployModel", "deploy_model"),
    (f"POST endpoints/{_ID}:undeployModel", "undeploy_model"),
    (f"POST endpoints/{_ID}:predict", "predict"),
    (f"POST {_JOBS}", "create_job"),
    (f"GET {_JOBS}", "list_jobs"),
    (f"GET {_JOBS}/{_ID}", "get_job"),
    (f"DELETE {_JOBS}/{_ID}", "delete_job"),
    (f"POST (pipelineJobs|customJobs|batchPredictionJobs)/{_ID}:cancel", "cancel_job"),
    (f"PATCH schedules/{_ID}", "update_schedule"),
    (f"POST schedules/{_ID}:(pause|resume)", "turn_schedule"),
]


def _name(resource):
    return f"projects/{NUMBER}/locations/{LOCATION}/{resource}"


def _read(kind, body):
    message = kind()
    json_format.Parse(body or b"{}", message._pb)
    return message


def _update_fields(query):
    """Returns the names of the fields that a request changes, as the messages have them."""
    return [re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", name) for name in query["updateMask"].split(",")]


def _deployed_ids(endpoint):
    return {model.id for model in endpoint.deployed_models}


def _page(kind, field, resources, query):
    """Returns the page of `resources` that a query asks for, as a response of `kind` with them in its `field`."""
    begin = int(query.get("pageToken") or 0)
    if display_name := re.fullmatch(r'display_name="(.*)"', query.get("filter", "")):
        resources = [resource for resource in resources if resource.display_name == display_name[1]]
    elif query.get("filter"):
        raise Refusal(400, f"the stand-in does not know the filter {query['filter']}")
    size = min(int(query.get("pageSize") or PAGE), PAGE)
    following = str(begin + size) if begin + size < len(resources) else ""
    return kind(**{field: resources[begin : begin + size]}, next_page_token=following)


def _check_split(split, known):
    if not set(split) <= known:
        raise Refusal(400, f"{set(split) - known} are not deployed")
    if split and (sum(split.values()) != 100 or min(split.values()) < 0):
        raise Refusal(400, f"traffic_split {dict(split)} does not add up to 100")


def _check_labels(labels):
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z0-9_-]{1,63}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise Refusal(400, f"{key}={value} is not a valid label")


def _failure(what):
    return None if what == "cut" else _error(what, "injected")


def _error(code, message, **fields):
    return http_server.json_answer(code, {"error": {"code": code, "message": message, **fields}})


@contextlib.contextmanager
def running():
    """Yields a stand-in that answers at `url` until the block ends."""
    service = VertexApi()
    with http_server.serving(service) as service.url:
        yield service
