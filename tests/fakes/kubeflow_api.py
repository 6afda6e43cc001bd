"""A stand-in for the API server of Kubeflow Pipelines: REST v2beta1 over HTTP, in kfp-server-api's own models.

What it answers is serialised from those models and what it is sent is read into them, so names and types are the API's.
It keeps what it is given, pages its lists by two, and does not run anything: tests say what a run's states are.
"""

import contextlib
import datetime
import email
import json
import re
import threading
import urllib.parse
import uuid
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import kfp_server_api as api

PAGE = 2
# Its name differs between versions of the package.
_STATUS = getattr(api, "GoogleRpcStatus", None) or api.GooglerpcStatus


class KubeflowApi:
    """`experiments`, `pipelines`, `versions`, `runs`, `recurring`: models by id. `uploads`: packages by version's id.

    `states`: what a run answers, one `(state, {task: state}, message)` a look, the last again and again. `faults`:
    `[pattern of "METHOD path", status, times]`. `token`: the bearer token that is asked for, where set.
    """

    def __init__(self):
        self.experiments, self.pipelines, self.versions, self.runs, self.recurring = {}, {}, {}, {}, {}
        self.uploads, self.states, self.faults, self.requests = {}, [], [], []
        self.token, self.content_type = None, "application/json"
        self._client = api.ApiClient(api.Configuration())
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.host = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method, path, query, body):
        """Returns status and model for a request."""
        self.requests.append(f"{method} {path}")
        for fault in self.faults:
            if fault[2] and re.search(fault[0], f"{method} {path}"):
                fault[2] -= 1
                return fault[1], {"error": "injected", "message": "injected"}
        path = path.removeprefix("/apis/v2beta1/")
        for name, pattern in _ROUTES:
            if match := re.fullmatch(pattern, f"{method} {path}"):
                try:
                    return 200, getattr(self, name)(query, body, **match.groupdict())
                except KeyError as missing:
                    return 404, {"error": "NotFound", "message": f"{missing} not found"}
        return 501, {"message": f"{method} {path} is not part of the stand-in"}

    def read(self, body, model):
        return self._client.deserialize(SimpleNamespace(data=body.decode()), model)

    def written(self, model):
        return json.dumps(self._client.sanitize_for_serialization(model)).encode()

    def healthz(self, query, body):
        return api.V2beta1GetHealthzResponse(multi_user=False)

    def list_experiments(self, query, body):
        return _listed(api.V2beta1ListExperimentsResponse, "experiments", self.experiments, query)

    def get_experiment(self, query, body, id):
        return self.experiments[id]

    def create_experiment(self, query, body):
        return _kept(self.experiments, "experiment_id", self.read(body, "V2beta1Experiment"))

    def list_pipelines(self, query, body):
        of = {key: one for key, one in self.pipelines.items() if one.namespace == query.get("namespace")}
        return _listed(api.V2beta1ListPipelinesResponse, "pipelines", of, query)

    def list_versions(self, query, body, id):
        of = {key: one for key, one in self.versions.items() if one.pipeline_id == id}
        return _listed(api.V2beta1ListPipelineVersionsResponse, "pipeline_versions", of, query)

    def upload(self, query, body):
        pipeline = api.V2beta1Pipeline(
            display_name=query["name"], description=query.get("description"), namespace=query.get("namespace")
        )
        made = _kept(self.pipelines, "pipeline_id", pipeline)
        self._version(made.pipeline_id, query["name"], query, body)
        return made

    def upload_version(self, query, body):
        return self._version(self.pipelines[query["pipelineid"]].pipeline_id, query["name"], query, body)

    def _version(self, pipeline, name, query, body):
        version = api.V2beta1PipelineVersion(
            pipeline_id=pipeline, display_name=name, description=query.get("description")
        )
        made = _kept(self.versions, "pipeline_version_id", version)
        self.uploads[made.pipeline_version_id] = body
        return made

    def create_run(self, query, body):
        run = self.read(body, "V2beta1Run")
        self._check(run)
        run.state = "PENDING"
        return _kept(self.runs, "run_id", run)

    def get_run(self, query, body, id):
        run = self.runs[id]
        if self.states:
            state, tasks, message = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            run.state = state
            run.error = _STATUS(message=message) if message else None
            run.run_details = api.V2beta1RunDetails(
                task_details=[node for task in tasks.items() for node in _nodes(*task)]
            )
        return run

    def create_recurring(self, query, body):
        made = self.read(body, "V2beta1RecurringRun")
        self._check(made)
        if len((made.trigger.cron_schedule.cron or "").split()) != 6:
            raise AssertionError("Kubeflow's cron has six fields")
        return _kept(self.recurring, "recurring_run_id", made)

    def list_recurring(self, query, body):
        of = {key: one for key, one in self.recurring.items() if one.experiment_id == query.get("experiment_id")}
        return _listed(api.V2beta1ListRecurringRunsResponse, "recurring_runs", of, query)

    def delete_recurring(self, query, body, id):
        del self.recurring[id]
        return {}

    def _check(self, given):
        """Raises KeyError where what is referred to is not there."""
        self.experiments[given.experiment_id]
        reference = given.pipeline_version_reference
        if not reference:
            assert given.pipeline_spec["pipeline_spec"], "neither version nor package"
            return
        self.pipelines[reference.pipeline_id]
        self.versions[reference.pipeline_version_id]


_ROUTES = [
    ("healthz", "GET healthz"),
    ("list_experiments", "GET experiments"),
    ("get_experiment", "GET experiments/(?P<id>[^/]+)"),
    ("create_experiment", "POST experiments"),
    ("list_pipelines", "GET pipelines"),
    ("list_versions", "GET pipelines/(?P<id>[^/]+)/versions"),
    ("upload_version", "POST pipelines/upload_version"),
    ("upload", "POST pipelines/upload"),
    ("create_run", "POST runs"),
    ("get_run", "GET runs/(?P<id>[^/]+)"),
    ("create_recurring", "POST recurringruns"),
    ("list_recurring", "GET recurringruns"),
    ("delete_recurring", "DELETE recurringruns/(?P<id>[^/]+)"),
]


def _kept(place, field, model):
    setattr(model, field, str(uuid.uuid4()))
    place[getattr(model, field)] = model
    return model


def _listed(kind, field, place, query):
    found = list(place.values())
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        operation = predicate["operation"]
        assert operation in (1, "EQUALS"), operation
        value = predicate.get("stringValue", predicate.get("string_value"))
        found = [one for one in found if getattr(one, predicate["key"]) == value]
    begin = int(query.get("page_token") or 0)
    size = min(int(query.get("page_size") or PAGE), PAGE)
    token = str(begin + size) if begin + size < len(found) else ""
    return kind(**{field: found[begin : begin + size]}, next_page_token=token, total_size=len(found))


def _nodes(name, state):
    """Returns a task's nodes as Argo has them: of one that is reused, only the executor within is skipped."""
    task = _task(name, "SUCCEEDED" if state == "REUSED" else state)
    if name == "root" or name.endswith("-driver"):
        return [task]
    executor = _task("executor", "SKIPPED" if state == "REUSED" else state)
    executor.pod_name = f"marco-local-x7k2p-retry-system-container-impl-{zlib.crc32(name.encode())}"
    task.child_tasks = [api.PipelineTaskDetailChildTask(pod_name=f"marco-local-x7k2p-{zlib.crc32(name.encode())}")]
    return [_task(f"{name}-driver", "SUCCEEDED"), task, executor]


def _task(name, state):
    begun = datetime.datetime(2026, 1, 5, 3, tzinfo=datetime.timezone.utc)
    state, _, message = state.partition(": ")
    return api.V2beta1PipelineTaskDetail(
        display_name=name,
        state=state,
        start_time=begun,
        end_time=begun + datetime.timedelta(seconds=12) if state != "RUNNING" else None,
        error=_STATUS(message=message) if message else None,
    )


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        def _answer(self):
            parts = urllib.parse.urlsplit(self.path)
            query = {name: values[0] for name, values in urllib.parse.parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get_content_maintype() == "multipart":
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                body = next(part.get_payload(decode=True) for part in email.message_from_bytes(head + body).walk()
                            if part.get_filename())  # fmt: skip
            if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                status, model = 401, {"error": "Unauthenticated", "message": "who are you?"}
            else:
                status, model = server.answer(self.command, parts.path, query, body)
            content = server.written(model)
            self.send_response(status)
            self.send_header("Content-Type", server.content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *arguments):
            pass

    return Handler


@contextlib.contextmanager
def running():
    """Yields a stand-in that answers until the block ends."""
    server = KubeflowApi()
    try:
        yield server
    finally:
        server.close()
