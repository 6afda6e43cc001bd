"""A stand-in for the API server of Kubeflow Pipelines: REST v2beta1 over HTTP, in kfp-server-api's own models.

Written from kfp-server-api 2.0.5 and 2.17.3 (`kfp_server_api/models/`). Answers are serialised from those models and
requests are read into them, so names and types are the API's. It keeps what is created, returns two items per page, and
runs nothing: tests set the states of a run.
"""

import contextlib
import datetime
import email
import itertools
import json
import re
import uuid
import zlib
from types import SimpleNamespace

import kfp_server_api as api

from tests.fakes import http_server

PAGE = 2
# The name differs between versions of the package.
_STATUS = getattr(api, "GoogleRpcStatus", None) or api.GooglerpcStatus


class KubeflowApi:
    """`experiments`, `pipelines`, `versions`, `runs`, `recurring`: models by id. `uploads`: packages by version id.

    `states`: the answers about a run, one `(state, {task: state}, message)` per request; the last one is repeated.
    `retried`: whether Argo has nodes for retries. `faults`: `[pattern of "METHOD path", status, times]`. `token`: the
    bearer token that is required, if set.
    """

    def __init__(self):
        self.experiments, self.pipelines, self.versions, self.runs, self.recurring = {}, {}, {}, {}, {}
        self.uploads, self.states, self.faults, self.requests = {}, [], [], []
        self.token, self.content_type = None, "application/json"
        self.retried = False
        self._client = api.ApiClient(api.Configuration())

    def respond(self, request):
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            status, model = 401, {"error": "Unauthenticated", "message": "who are you?"}
        else:
            status, model = self.answer(request.method, request.path, request.query, _content(request))
        value = self._client.sanitize_for_serialization(model)
        return http_server.json_answer(status, value, {"Content-Type": self.content_type})

    def answer(self, method, path, query, body):
        """Returns status and model for a request."""
        self.requests.append(f"{method} {path}")
        for fault in self.faults:
            if fault[2] and re.search(fault[0], f"{method} {path}"):
                fault[2] -= 1
                return fault[1], {"error": "injected", "message": "injected"}
        path = path.removeprefix("/apis/v2beta1/")
        route = http_server.find_route(_ROUTES, method, path)
        if route is None:
            return 501, {"message": f"{method} {path} is not part of the stand-in"}
        name, groups = route
        try:
            return 200, getattr(self, name)(query, body, *groups)
        except KeyError as missing:
            return 404, {"error": "NotFound", "message": f"{missing} not found"}

    def read(self, body, model):
        return self._client.deserialize(SimpleNamespace(data=body.decode()), model)

    def healthz(self, query, body):
        return api.V2beta1GetHealthzResponse(multi_user=False)

    def list_experiments(self, query, body):
        return _page(api.V2beta1ListExperimentsResponse, "experiments", list(self.experiments.values()), query)

    def get_experiment(self, query, body, id):
        return self.experiments[id]

    def create_experiment(self, query, body):
        return _keep(self.experiments, "experiment_id", self.read(body, "V2beta1Experiment"))

    def list_pipelines(self, query, body):
        pipelines = [item for item in self.pipelines.values() if item.namespace == query.get("namespace")]
        return _page(api.V2beta1ListPipelinesResponse, "pipelines", pipelines, query)

    def list_versions(self, query, body, id):
        versions = [version for version in self.versions.values() if version.pipeline_id == id]
        return _page(api.V2beta1ListPipelineVersionsResponse, "pipeline_versions", versions, query)

    def upload(self, query, body):
        pipeline = api.V2beta1Pipeline(
            display_name=query["name"], description=query.get("description"), namespace=query.get("namespace")
        )
        _keep(self.pipelines, "pipeline_id", pipeline)
        self._create_version(pipeline.pipeline_id, query, body)
        return pipeline

    def upload_version(self, query, body):
        return self._create_version(self.pipelines[query["pipelineid"]].pipeline_id, query, body)

    def _create_version(self, pipeline_id, query, body):
        version = api.V2beta1PipelineVersion(
            pipeline_id=pipeline_id, display_name=query["name"], description=query.get("description")
        )
        _keep(self.versions, "pipeline_version_id", version)
        self.uploads[version.pipeline_version_id] = body
        return version

    def create_run(self, query, body):
        run = self.read(body, "V2beta1Run")
        self._check_references(run)
        run.state = "PENDING"
        return _keep(self.runs, "run_id", run)

    def get_run(self, query, body, id):
        run = self.runs[id]
        if self.states:
            state, tasks, message = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            run.state = state
            run.error = _STATUS(message=message) if message else None
            run.run_details = api.V2beta1RunDetails(
                task_details=[node for task in tasks.items() for node in _nodes(*task, self.retried)]
            )
        return run

    def create_recurring(self, query, body):
        run = self.read(body, "V2beta1RecurringRun")
        self._check_references(run)
        if len((run.trigger.cron_schedule.cron or "").split()) != 6:
            raise AssertionError("Kubeflow's cron has six fields")
        return _keep(self.recurring, "recurring_run_id", run)

    def list_recurring(self, query, body):
        runs = [run for run in self.recurring.values() if run.experiment_id == query.get("experiment_id")]
        return _page(api.V2beta1ListRecurringRunsResponse, "recurring_runs", runs, query)

    def delete_recurring(self, query, body, id):
        del self.recurring[id]
        return {}

    def _check_references(self, run):
        """Raises KeyError if the experiment, the pipeline or the version of a run does not exist."""
        self.experiments[run.experiment_id]
        reference = run.pipeline_version_reference
        if not reference:
            assert run.pipeline_spec["pipeline_spec"], "neither version nor package"
            return
        self.pipelines[reference.pipeline_id]
        self.versions[reference.pipeline_version_id]


_ROUTES = [
    ("GET healthz", "healthz"),
    ("GET experiments", "list_experiments"),
    ("GET experiments/([^/]+)", "get_experiment"),
    ("POST experiments", "create_experiment"),
    ("GET pipelines", "list_pipelines"),
    ("GET pipelines/([^/]+)/versions", "list_versions"),
    ("POST pipelines/upload_version", "upload_version"),
    ("POST pipelines/upload", "upload"),
    ("POST runs", "create_run"),
    ("GET runs/([^/]+)", "get_run"),
    ("POST recurringruns", "create_recurring"),
    ("GET recurringruns", "list_recurring"),
    ("DELETE recurringruns/([^/]+)", "delete_recurring"),
]


def _content(request):
    """Returns the body of a request, of a form with a file the file."""
    if request.headers.get_content_maintype() != "multipart":
        return request.body
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + request.body).walk()
    return next(part.get_payload(decode=True) for part in parts if part.get_filename())


def _keep(models, field, model):
    """Gives a model an id in its `field`, and adds it to `models` under that id."""
    setattr(model, field, str(uuid.uuid4()))
    models[getattr(model, field)] = model
    return model


def _page(kind, field, models, query):
    """Returns the page of `models` that a query asks for, as a response of `kind` with the models in its `field`."""
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        operation = predicate["operation"]
        assert operation in (1, "EQUALS"), operation
        value = predicate.get("stringValue", predicate.get("string_value"))
        models = [model for model in models if getattr(model, predicate["key"]) == value]
    begin = int(query.get("page_token") or 0)
    size = min(int(query.get("page_size") or PAGE), PAGE)
    token = str(begin + size) if begin + size < len(models) else ""
    return kind(**{field: models[begin : begin + size]}, next_page_token=token, total_size=len(models))


def _nodes(name, state, retried):
    """Returns the nodes of a task as Argo reports them: where it is reused, only its executor is skipped.

    `retried`: with the node for retries that Argo puts around every template, the graph of a step included, under the
    `templateDefaults` of Kubeflow Pipelines 2.17.0 (argo-workflows v4.0.5, `workflow/controller/operator.go`, "Inject a
    retry node"). The node has the step's name, and its attempts are NAME(0), NAME(1), and so on.
    """
    task = _task(name, "SUCCEEDED" if state == "REUSED" else state)
    if name == "root" or name.endswith("-driver"):
        return [task]
    executor = _task("executor", "SKIPPED" if state == "REUSED" else state)
    chain = [task, *([_task(f"{name}(0)", task.state)] if retried else []), executor]
    for parent, child in itertools.pairwise(chain):
        number = zlib.crc32(f"{name} {child.display_name}".encode())
        child.pod_name = f"marco-local-x7k2p-retry-system-container-impl-{number}"
        parent.child_tasks = [api.PipelineTaskDetailChildTask(pod_name=f"marco-local-x7k2p-{number}")]
    return [_task(f"{name}-driver", "SUCCEEDED"), *chain]


def _task(name, state):
    start = datetime.datetime(2026, 1, 5, 3, tzinfo=datetime.timezone.utc)
    state, _, message = state.partition(": ")
    return api.V2beta1PipelineTaskDetail(
        display_name=name,
        state=state,
        start_time=start,
        end_time=start + datetime.timedelta(seconds=12) if state != "RUNNING" else None,
        error=_STATUS(message=message) if message else None,
    )


@contextlib.contextmanager
def running():
    """Yields a stand-in that answers at `url` until the block ends."""
    service = KubeflowApi()
    with http_server.serving(service) as service.url:
        yield service
