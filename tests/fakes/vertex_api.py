"""A stand-in for Vertex AI: its REST API over HTTP, in Google's own messages.

What it is sent is read into those messages, so a field that the API does not know is refused, and what it answers is
written from them. It keeps what it is given and holds to the rules that the API's reference states: traffic adds up to
100 or is empty, a deployed model with traffic is not taken away unless it is the last, ids are taken once, a change
with an old etag is refused, names come back with the project's number. Operations end by themselves after some more
requests. It does not run anything: `score` answers for all models, `jobs` says how jobs end.
"""

import base64
import contextlib
import io
import json
import re
import socket
import threading
import unittest.mock
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

PROJECT, NUMBER, LOCATION = "crystals", "123456789", "europe-west4"
PAGE = 2
PENDING = 2
"""Requests after which an operation has ended."""


class Refusal(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


class VertexApi:
    """`models`: versions by the model's id. `endpoints`: messages by id. `made`: jobs and schedules by kind and id.

    `fault(index, method, path)` returns None, or what happens to request number `index`: a pair of a status, or `cut`
    for a connection that is closed, and `before` or `after` it was done. `watch()` is called after each
    request and each operation.
    `score(content, uri)` returns the prediction of the model at `uri`; an `ArithmeticError` of it is a broken
    container, a `ValueError` one that refuses the image. `asked` is the version, as a message, that it is called for.
    `refuses`: URIs of models whose container does not come up.
    """

    def __init__(self):
        self.models, self.endpoints, self.operations, self.requests = {}, {}, {}, []
        self.made = {"pipelineJobs": {}, "schedules": {}, "customJobs": {}, "batchPredictionJobs": {}}
        self.refuses, self.states = set(), []
        self.fault = lambda index, method, path: None
        self.watch = lambda: None
        self.score = lambda content, uri: {"scores": [1.0, 0.0, 0.0, 0.0], "class": "Clear"}
        self.turns, self.asked, self._count, self._lock = {}, None, 0, threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def handle(self, method, target, body):
        """Returns status and JSON for a request, None where the connection is to be closed."""
        parts = urllib.parse.urlsplit(target)
        # Newer versions of Google's client write the @ of MODEL@VERSION as %40.
        path = urllib.parse.unquote(parts.path)
        query = {name: values[-1] for name, values in urllib.parse.parse_qs(parts.query).items()}
        with self._lock:
            fault = self.fault(len(self.requests), method, path)
            self.requests.append(f"{method} {path}")
            self._advance()
            if fault and fault[1] == "before":
                return _failure(fault[0])
            answer = self._answer(method, path, query, body)
            self.watch()
            return _failure(fault[0]) if fault else answer

    def _answer(self, method, path, query, body):
        path = re.sub(rf"^/v1/projects/({PROJECT}|{NUMBER})/locations/{LOCATION}/", "", path)
        for pattern, name in _ROUTES:
            if match := re.fullmatch(pattern, f"{method} {path}"):
                try:
                    made = getattr(self, name)(query, body, *match.groups())
                except Refusal as refusal:
                    return refusal.status, {"error": {"code": refusal.status, "message": refusal.message}}
                except json_format.ParseError as error:
                    return 400, {"error": {"code": 400, "message": str(error), "status": "INVALID_ARGUMENT"}}
                return 200, made if isinstance(made, dict) else json_format.MessageToDict(made._pb)
        return 404, {"error": {"code": 404, "message": f"{method} {path} is not part of the stand-in"}}

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

    def _told(self, name):
        operation = self.operations[name]
        told = {"name": name, "done": not operation["left"]}
        if operation["error"]:
            told["error"] = operation["error"]
        return {key: value for key, value in told.items() if value is not False}

    def get_operation(self, query, body, resource, number):
        name = f"{_name(resource)}/operations/{number}"
        if name not in self.operations:
            raise Refusal(404, f"{name} not found")
        return self._told(name)

    def list_operations(self, query, body, resource):
        return {"operations": [self._told(name) for name in self.operations if name.startswith(f"{_name(resource)}/")]}

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
        return _page(types.ListModelsResponse, "models", [one[-1] for one in self.models.values()], query)

    def get_model(self, query, body, identity):
        return self._version(identity)

    def list_versions(self, query, body, identity):
        if identity not in self.models:
            raise Refusal(404, f"model {identity} not found")
        return _page(types.ListModelVersionsResponse, "models", self.models[identity][::-1], query)

    def merge_aliases(self, query, body, identity):
        version = self._version(identity)
        for alias in _read(types.MergeVersionAliasesRequest, body).version_aliases:
            if not re.fullmatch(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]", alias):
                raise Refusal(400, f"{alias} is no alias")
            for other in self.models[identity.partition("@")[0]]:
                other.version_aliases = [one for one in other.version_aliases if one != alias]
            version.version_aliases.append(alias)
        return version

    def _version(self, identity):
        model, _, number = identity.partition("@")
        found = [one for one in self.models.get(model, []) if number in (one.version_id, *one.version_aliases)]
        if not found:
            raise Refusal(404, f"model {identity} not found")
        return found[0]

    # Endpoints

    def create_endpoint(self, query, body):
        endpoint = _read(types.Endpoint, body)
        identity = query.get("endpointId") or str(2000 + len(self.endpoints))
        if identity in self.endpoints or self._runs(f"endpoints/{identity}"):
            raise Refusal(409, f"endpoint {identity} already exists")
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9]\d{0,8}", identity):
            raise Refusal(400, f"{identity} is no id")
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
        endpoint, given = self.get_endpoint(query, body, identity), _read(types.Endpoint, body)
        if given.etag and given.etag != endpoint.etag:
            raise Refusal(409, "the etag is an old one")
        fields = [re.sub("[A-Z]", lambda one: f"_{one[0].lower()}", name) for name in query["updateMask"].split(",")]
        if not set(fields) <= {"traffic_split", "labels", "display_name", "description"}:
            raise Refusal(400, f"{fields} cannot be changed")
        if "traffic_split" in fields:
            _check_split(given.traffic_split, {one.id for one in endpoint.deployed_models})
        _check_labels(given.labels)
        for field in fields:
            setattr(
                endpoint, field, dict(getattr(given, field)) if "_" not in field or field == "traffic_split" else ""
            )
        self._changed(endpoint)
        return endpoint

    def deploy_model(self, query, body, identity):
        endpoint, request = self.get_endpoint(query, body, identity), _read(types.DeployModelRequest, body)
        model, split = request.deployed_model, dict(request.traffic_split)
        version = self._version(model.model.rsplit("/", 1)[-1])
        if not re.fullmatch(r"\d{1,10}", model.id):
            raise Refusal(400, f"{model.id!r} is no id")
        if model.id in {one.id for one in endpoint.deployed_models} or self._runs(f"endpoints/{identity}", model.id):
            raise Refusal(409, f"deployed model {model.id} already exists")
        if not model.dedicated_resources.machine_spec.machine_type:
            raise Refusal(400, "machine_type is required")
        _check_split(split or {"0": 100}, {"0", *(one.id for one in endpoint.deployed_models)})

        def effect():
            if version.artifact_uri in self.refuses:
                raise Refusal(400, "the model server exited unexpectedly")
            if split:
                _check_split(split, {"0", *(one.id for one in endpoint.deployed_models)})
            self._count += 1
            model.model, model.model_version_id = version.name, version.version_id
            model.create_time = {"seconds": 1767571200 + 60 * self._count}
            endpoint.deployed_models.append(model)
            if split:
                endpoint.traffic_split = {model.id if key == "0" else key: share for key, share in split.items()}
            self._changed(endpoint)

        told = self._begin(f"endpoints/{identity}", effect)
        self.operations[told["name"]]["of"] = model.id
        return told

    def undeploy_model(self, query, body, identity):
        endpoint, request = self.get_endpoint(query, body, identity), _read(types.UndeployModelRequest, body)
        if request.deployed_model_id not in {one.id for one in endpoint.deployed_models}:
            raise Refusal(404, f"deployed model {request.deployed_model_id} not found")

        def effect():
            one, split = request.deployed_model_id, dict(endpoint.traffic_split)
            left = [other for other in endpoint.deployed_models if other.id != one]
            if split.pop(one, 0) and left:
                raise Refusal(400, f"deployed model {one} has traffic")
            endpoint.deployed_models, endpoint.traffic_split = left, split if left else {}
            self._changed(endpoint)

        return self._begin(f"endpoints/{identity}", effect)

    def predict(self, query, body, identity):
        """Answers by turns, so that of a hundred requests each model has its share."""
        endpoint = self.get_endpoint(query, body, identity)
        request = _read(types.PredictRequest, body)
        if not endpoint.traffic_split:
            raise Refusal(400, "the endpoint has no deployed model with traffic")
        turn = self.turns[identity] = self.turns.get(identity, 0) + 37
        shares = sorted(endpoint.traffic_split.items())
        slots = [key for key, share in shares for _ in range(share)]
        model = next(one for one in endpoint.deployed_models if one.id == slots[turn % 100])
        version = self.asked = next(
            one for one in self.models[model.model.rsplit("/", 1)[-1]] if one.version_id == model.model_version_id
        )
        try:
            predictions = [
                self.score(base64.b64decode(one["image_bytes"]["b64"]), version.artifact_uri)
                for one in json_format.MessageToDict(request._pb)["instances"]
            ]
        except ArithmeticError as error:
            raise Refusal(500, f"the container answered: {error}") from error
        except ValueError as error:
            raise Refusal(400, f"the container answered: {error}") from error
        told = {"predictions": predictions, "deployedModelId": model.id, "model": model.model}
        return {**told, "modelVersionId": model.model_version_id, "modelDisplayName": version.display_name}

    def _changed(self, endpoint):
        endpoint.etag = str(int(endpoint.etag) + 1)

    def _runs(self, resource, identity=None):
        return any(
            one["left"] and name.startswith(f"{_name(resource)}/") and identity in (None, one.get("of"))
            for name, one in self.operations.items()
        )

    # Pipelines, schedules, jobs

    def create_job(self, query, body, kind):
        message = _KINDS[kind]
        made = _read(message, body)
        self._count += 1
        identity = query.get("pipelineJobId") or str(3000 + self._count)
        if identity in self.made[kind]:
            raise Refusal(409, f"{kind} {identity} already exists")
        made.name = _name(f"{kind}/{identity}")
        if kind == "schedules":
            made.state = types.Schedule.State.ACTIVE
        self.made[kind][identity] = made
        return made

    def list_jobs(self, query, body, kind):
        response, field = _LISTS[kind]
        return _page(response, field, list(self.made[kind].values()), query)

    def get_job(self, query, body, kind, identity):
        if identity not in self.made[kind]:
            raise Refusal(404, f"{kind} {identity} not found")
        one = self.made[kind][identity]
        if self.states and kind != "schedules":
            update = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            update(one)
        return one

    def delete_job(self, query, body, kind, identity):
        self.get_job(query, body, kind, identity)
        del self.made[kind][identity]
        return self._begin(f"{kind}/{identity}", lambda: None)

    def cancel_job(self, query, body, kind, identity):
        self.made[kind][identity].state = 5 if kind != "pipelineJobs" else 7
        self.states = []
        return {}

    def update_schedule(self, query, body, identity):
        schedule, given = self.get_job(query, body, "schedules", identity), _read(types.Schedule, body)
        for name in query["updateMask"].split(","):
            field = re.sub("[A-Z]", lambda one: f"_{one[0].lower()}", name)
            setattr(schedule, field, getattr(given, field))
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
    (f"POST {_JOBS}/{_ID}:cancel", "cancel_job"),
    (f"PATCH schedules/{_ID}", "update_schedule"),
    (f"POST schedules/{_ID}:(pause|resume)", "turn_schedule"),
]


def _name(resource):
    return f"projects/{NUMBER}/locations/{LOCATION}/{resource}"


def _read(kind, body):
    message = kind()
    json_format.Parse(body or b"{}", message._pb)
    return message


def _page(kind, field, found, query):
    begin = int(query.get("pageToken") or 0)
    if wanted := re.fullmatch(r'display_name="(.*)"', query.get("filter", "")):
        found = [one for one in found if one.display_name == wanted[1]]
    elif query.get("filter"):
        raise Refusal(400, f"the stand-in knows no filter {query['filter']}")
    size = min(int(query.get("pageSize") or PAGE), PAGE)
    following = str(begin + size) if begin + size < len(found) else ""
    return kind(**{field: found[begin : begin + size]}, next_page_token=following)


def _check_split(split, known):
    if not set(split) <= known:
        raise Refusal(400, f"{set(split) - known} are not deployed")
    if split and (sum(split.values()) != 100 or min(split.values()) < 0):
        raise Refusal(400, f"traffic_split {dict(split)} does not add up to 100")


def _check_labels(labels):
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z0-9_-]{1,63}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise Refusal(400, f"{key}={value} is no label")


def _failure(what):
    return None if what == "cut" else (what, {"error": {"code": what, "message": "injected"}})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


def _handler(service):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def _answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = service.handle(self.command, self.path, body)
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            content = json.dumps(answer[1]).encode()
            head = f"HTTP/1.1 {answer[0]} x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            self.wfile.write(head.encode() + content)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, *arguments):
            pass

    return Handler


@contextlib.contextmanager
def without_sockets(service):
    """Answers this process's requests to a stand-in without its server: for tests that send thousands of them."""
    send = requests.Session.request

    def request(session, method, url, params=None, data=None, **options):
        if not url.startswith(f"{service.url}/"):
            return send(session, method, url, params=params, data=data, **options)
        target = f"{url}?{urllib.parse.urlencode(params)}" if params else url
        answer = service.handle(method.upper(), target.removeprefix(service.url), data)
        if answer is None:
            raise requests.exceptions.ConnectionError("the connection was closed")
        response = requests.Response()
        response.status_code, response.url, response.request = answer[0], target, requests.Request(method, target)
        response.headers["Content-Type"] = "application/json"
        response.raw = io.BytesIO(json.dumps(answer[1]).encode())
        return response

    with unittest.mock.patch.object(requests.Session, "request", request):
        yield


@contextlib.contextmanager
def running():
    """Yields a stand-in that answers until the block ends."""
    service = VertexApi()
    try:
        yield service
    finally:
        service.close()
