"""Kubeflow Pipelines as a `pipelines.backend.Backend`: KFP's own client, with limits, and its errors in one line."""

import contextlib
import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import urllib3
import yaml

from marco_model import errors
from pipelines import backend

DEFAULT_EXPERIMENT = "marco"
_SERVICE = "Kubeflow Pipelines"
_HEALTH_SECONDS = (5.0, 10.0)
_REQUEST_SECONDS = (10.0, 60.0)
_RETRIES = 1
_PAGE = 100


@dataclasses.dataclass
class KubeflowBackend:
    """Kubeflow Pipelines, to which it connects at the first request. `host`, `token_file` and `ca`: see `connect`.

    `experiment`: where runs are listed; the default, `marco`, is made where it is missing, others with
    `create_experiment`. `namespace`: whose runs and pipelines, on an installation with several users.
    """

    host: str | None = None
    namespace: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    experiment: str | None = None
    create_experiment: bool = False

    options = ""
    cron_fields = "second minute hour day month weekday, such as '0 0 3 * * 1'"
    schedule_noun = "recurring run"
    poll = 5.0
    patience = 300.0

    @functools.cached_property
    def _client(self) -> Any:
        return connect(self.host, self.token_file, self.ca)

    def read_package(self, path: Path) -> backend.Package:
        """As `Backend.read_package`: a .yaml file of two documents, of which the first is the pipeline."""

        def parse(content: bytes) -> Any:
            with errors.translated(ValueError, "{}", yaml.YAMLError):
                specification, platform = yaml.safe_load_all(content)
            platform["platforms"]["kubernetes"]  # A package for Vertex AI, which Kubeflow would take, has no such part.
            return specification

        return backend.read_package(path, parse, "compiled pipeline", "give the .yaml file that marco compile wrote")

    def read_cron(self, text: str) -> tuple[str, str]:
        """As `Backend.read_cron`: six fields, seconds first; five fields get a 0 in front.

        Kubeflow reads cron as robfig/cron 1 does: "?" is "*", Sunday is 0 alone, and L, W and # mean nothing.
        """
        advice = "write second, minute, hour, day, month and weekday, as in '0 0 3 * * 1' for Mondays at three"
        fields = text.split()
        if len(fields) == 5:
            fields = ["0", *fields]
        if len(fields) == 6 and (
            re.search(r"[LW#](?![A-Z])|(?<![\w/*])7", fields[5]) or re.search(r"[LW#]", fields[3])
        ):
            raise backend.wrong_cron(text, "to Kubeflow Sunday is 0, and L, W and # mean nothing", advice)
        return " ".join(fields), backend.explain_cron(text, " ".join(fields).replace("?", "*"), 6, advice)

    def upload(self, package: backend.Package) -> str:
        """As `Backend.upload`. The experiment must exist before anything is uploaded."""
        self._experiment_id()
        *_, known = self._version(package)
        return f"Version {package.version} of {package.name} {'was there already' if known else 'uploaded'}."

    def start(self, package: backend.Package, name: str | None, submission: backend.Submission) -> str:
        """As `Backend.start`. Kubeflow cannot switch off the cache of a version: such a run carries the package."""
        if submission.cache:
            pipeline, version, _ = self._version(package)
            content: dict[str, Any] = {"pipeline_id": pipeline, "version_id": version}
        else:
            content = {"pipeline_package_path": str(package.path), "enable_caching": False}
        name = name or f"{package.name} {datetime.datetime.now().isoformat(' ', 'seconds')}"
        experiment = self._experiment_id()
        with reaching(_SERVICE):
            run = self._client.run_pipeline(
                experiment_id=experiment, job_name=name, **content, **_client_options(submission)
            )
        return str(run.run_id)

    def run_status(self, run: str, steps: tuple[str, ...]) -> backend.RunStatus:
        """As `Backend.run_status`."""
        with reaching(_SERVICE):
            status = self._client.get_run(run)
        tasks = list(status.run_details.task_details or []) if status.run_details else []
        names = {task.display_name for task in tasks}
        return backend.RunStatus(
            status.state or "PENDING",
            [_step_status(task, tasks) for task in tasks if _is_step(task.display_name, steps, names)],
            _error_message(status),
        )

    def log_link(self, run: str) -> str:
        """As `Backend.log_link`."""
        return f"{self._client.address.rstrip('/')}/#/runs/details/{run}"

    def schedules(self) -> list[backend.ScheduleStatus]:
        """As `Backend.schedules`: those of the experiment. Raises `InputError` where the named one does not exist."""
        experiment = self._existing_experiment()
        if self.experiment and not experiment:
            raise errors.InputError(f"there is no experiment {self.experiment!r}; fix --experiment or --namespace")
        if not experiment:
            return []
        with reaching(_SERVICE):
            runs = list(pages(self._client.list_recurring_runs, "recurring_runs", experiment_id=experiment))
        return [
            backend.ScheduleStatus(
                str(run.recurring_run_id),
                run.display_name,
                run.trigger.cron_schedule.cron if run.trigger and run.trigger.cron_schedule else "no cron",
                "on" if run.mode == "ENABLE" else "off",
                run.description or "",
            )
            for run in runs
        ]

    def schedule_note(self, plan: backend.Plan) -> str:
        """As `Backend.schedule_note`: Kubeflow returns neither all of these nor as they were set."""
        self._experiment_id()
        note = {
            "cron": plan.cron,
            "version": self._version(plan.package)[1],
            "parameters": plan.submission.parameters,
            "pipeline_root": plan.submission.pipeline_root or "",
            "service_account": plan.submission.service_account or "",
            "max_concurrency": plan.max_concurrency,
        }
        return json.dumps(note, sort_keys=True)

    def create_schedule(self, plan: backend.Plan, note: str) -> str:
        """As `Backend.create_schedule`."""
        experiment = self._experiment_id()
        pipeline, version, _ = self._version(plan.package)
        with reaching(_SERVICE):
            run = self._client.create_recurring_run(
                experiment_id=experiment,
                job_name=plan.name,
                description=note,
                cron_expression=plan.cron,
                max_concurrency=plan.max_concurrency,
                no_catchup=True,
                pipeline_id=pipeline,
                version_id=version,
                **_client_options(plan.submission),
            )
        return str(run.recurring_run_id)

    def delete_schedule(self, identity: str) -> None:
        """As `Backend.delete_schedule`."""
        with reaching(_SERVICE):
            self._client.delete_recurring_run(identity)

    def _existing_experiment(self) -> str | None:
        name = self.experiment or DEFAULT_EXPERIMENT
        client = self._client  # Outside of the `try`: a refusal to connect is an `InputError`, and so a `ValueError`.
        with reaching(_SERVICE):
            try:
                return str(client.get_experiment(experiment_name=name, namespace=self.namespace).experiment_id)
            except ValueError:  # KFP's client raises it where there is none.
                return None

    def _experiment_id(self) -> str:
        """Returns the experiment's id; makes the experiment where it is missing and may be made."""
        if existing := self._existing_experiment():
            return existing
        if self.experiment and not self.create_experiment:
            raise errors.InputError(
                f"there is no experiment {self.experiment!r}; fix --experiment or add --create-experiment"
            )
        name = self.experiment or DEFAULT_EXPERIMENT
        with reaching(_SERVICE):
            return str(self._client.create_experiment(name, namespace=self.namespace).experiment_id)

    def _version(self, package: backend.Package) -> tuple[str, str, bool]:
        """Returns the ids of the pipeline and of the version with the package's content, and whether it was known.

        The same content is uploaded once: a version is named by its content. So is the description of the first, whose
        name Kubeflow chooses.
        """
        client, note = self._client, f"content {package.version}"
        with reaching(_SERVICE):
            pipeline = self._pipeline(package.name)
            if pipeline:
                for version in pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline):
                    if version.display_name == package.version or version.description == note:
                        return pipeline, str(version.pipeline_version_id), True
                uploaded = client.upload_pipeline_version(
                    str(package.path), package.version, pipeline_id=pipeline, description=note
                )
                return pipeline, str(uploaded.pipeline_version_id), False
            pipeline = client.upload_pipeline(
                str(package.path), package.name, description=note, namespace=self.namespace
            ).pipeline_id
            first = next(pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline))
            return str(pipeline), str(first.pipeline_version_id), False

    def _pipeline(self, name: str) -> str | None:
        """Returns the id of the pipeline of this name in the namespace; KFP's own look-up ignores the namespace."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        filter_ = json.dumps({"predicates": [predicate]})
        pipelines = pages(self._client.list_pipelines, "pipelines", namespace=self.namespace, filter=filter_)
        return next((str(pipeline.pipeline_id) for pipeline in pipelines), None)


def _client_options(submission: backend.Submission) -> dict[str, Any]:
    return {
        "params": submission.parameters,
        "pipeline_root": submission.pipeline_root,
        "service_account": submission.service_account,
    }


def _is_step(name: str, steps: tuple[str, ...], names: set[str]) -> bool:
    """Separates steps from what Kubeflow adds: the whole, a driver per step, executors and their retries."""
    if steps:
        return name in steps
    return name != "root" and f"{name}-driver" in names


def _step_status(task: Any, tasks: list[Any]) -> backend.StepStatus:
    state = "SKIPPED" if _is_reused(task, tasks) else task.state or "PENDING"
    seconds = (task.end_time - task.start_time).total_seconds() if task.start_time and task.end_time else None
    return backend.StepStatus(task.display_name, state, seconds, _error_message(task))


def _is_reused(task: Any, tasks: list[Any]) -> bool:
    """Returns whether the step succeeded without its executor, which is how Kubeflow shows a cache hit.

    From 2.17 on Argo puts a node for retries between the step and what it runs: `Trainer`, `Trainer(0)`, `executor`.
    A step names its children by the ids of Argo's nodes, and these name themselves by pods; both end in the same
    number. Source: `NodeStatuses` and `toModelTask` in the API server of Kubeflow Pipelines, and the `When` of its
    compiler's `addContainerExecutorTemplate`.
    """
    if task.state != "SUCCEEDED":
        return False
    children = _children(task, tasks)
    attempts = [child for child in children if re.fullmatch(r".+\(\d+\)", child.display_name)]
    children += [child for attempt in attempts for child in _children(attempt, tasks)]
    return any(child.display_name == "executor" and child.state == "SKIPPED" for child in children)


def _children(task: Any, tasks: list[Any]) -> list[Any]:
    numbers = {_number(child.pod_name) for child in task.child_tasks or [] if child.pod_name}
    return [other for other in tasks if _number(other.pod_name) in numbers]


def _number(name: str | None) -> str:
    return (name or "").rpartition("-")[2]


def _error_message(status: Any) -> str:
    """Returns the error of a run or step; most versions of Kubeflow Pipelines report none."""
    causes = [status.error, *(past.error for past in reversed(status.state_history or []))]
    return next((error.message for error in causes if error and error.message), "")


def pages(listing: Callable[..., Any], field: str, **options: Any) -> Iterator[Any]:
    """Yields the items of a listing of KFP's client, page after page."""
    token = ""
    while True:
        page = listing(page_token=token, page_size=_PAGE, **options)
        yield from getattr(page, field) or []
        token = page.next_page_token or ""
        if not token:
            return


def connect(host: str | None, token_file: Path | None = None, ca: Path | None = None) -> Any:
    """Returns KFP's client of `host`, by default that of `KF_PIPELINES_ENDPOINT`, of the pod or of kubectl's context.

    `token_file` holds a bearer token and is read again for every request, since such tokens expire after hours. `ca`
    holds the certificates to trust. KFP's client also reads its environment variables and its context file.

    Raises `InputError` where nothing answers within seconds, where the answer is a refusal, or for a `host` that holds
    credentials: addresses of runs are shown.
    """
    import kfp

    errors.refuse_credentials(host or "", "--host")

    def renew_token(config: Any) -> None:
        # The old token stays while the file is being replaced.
        with contextlib.suppress(OSError):
            if token_file and (token := token_file.read_text().strip()):
                config.api_key["authorization"] = token

    class Client(kfp.Client):
        address = ""

        def _load_config(self, *arguments: Any, **options: Any) -> Any:
            config = super()._load_config(*arguments, **options)
            self.address = config.host
            config.retries = urllib3.Retry(_RETRIES, backoff_factor=0.5)
            if token_file:
                config.refresh_api_key_hook = renew_token
            return config

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            # KFP's own asks five times, with a stack trace each. The method's name depends on the client's version.
            later = getattr(self._healthz_api, "healthz_service_get_healthz_with_http_info", None)
            ask = later or self._healthz_api.get_healthz_with_http_info
            try:
                answer, _, headers = ask(_request_timeout=_HEALTH_SECONDS)
            except urllib3.exceptions.MaxRetryError as error:
                kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
                if not isinstance(error.reason, kinds):
                    raise
                raise errors.InputError(
                    f"Kubeflow Pipelines at {self.address} cannot be reached "
                    f"({str(error.reason.args[-1]).rpartition(': ')[2]}); fix --host, or open a way in with kubectl "
                    "port-forward --namespace kubeflow service/ml-pipeline-ui 8080:80 and give --host "
                    "http://localhost:8080, with --token-file where Kubeflow has several users"
                ) from error
            if "json" not in headers.get("Content-Type", ""):
                raise errors.InputError(
                    f"{self.address} answers with a page, not as Kubeflow Pipelines; fix --host or give --token-file "
                    "where it is a login page"
                )
            return answer

    token = None
    if token_file:
        with errors.translated(errors.InputError, f"--token-file {token_file} cannot be read: {{}}", OSError):
            token = token_file.read_text().strip()
    with reaching(host or _SERVICE):
        client = Client(host=host, existing_token=token, ssl_ca_cert=str(ca) if ca else None)
        client.get_kfp_healthz()
        # The client has no public way to limit the time of a request; all of its services share this object.
        requests = client._run_api.api_client
        call = requests.call_api

        def limited(*arguments: Any, _request_timeout: Any = None, **options: Any) -> Any:
            return call(*arguments, _request_timeout=_request_timeout or _REQUEST_SECONDS, **options)

        requests.call_api = limited
    return client


@contextlib.contextmanager
def reaching(place: str) -> Iterator[None]:
    """Turns what KFP's client raises into one line: `InputError` where `place` refuses, else `ClusterError`."""
    import kfp_server_api

    try:
        yield
    except kfp_server_api.ApiException as error:
        reason = _reason(error)
        if error.status in (401, 403):
            raise errors.InputError(
                f"{place} refuses ({error.status}: {reason}); give --token-file with a valid token for Kubeflow "
                "(docs/kubeflow.md), or --namespace of a profile of yours"
            ) from error
        if error.status is not None and 400 <= error.status < 500:
            raise errors.InputError(f"{place} does not take this ({error.status}: {reason})") from error
        raise errors.ClusterError(f"{place} failed ({error.status}: {reason}); run again when it is well") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise errors.ClusterError(f"{place} cannot be reached ({errors.one_line(error)}); run again") from error


def _reason(error: Any) -> str:
    try:
        answer = json.loads(error.body)
        return errors.one_line(answer.get("message") or answer.get("error") or error.reason)
    except (TypeError, ValueError, AttributeError):
        return errors.one_line(str(error.reason))
