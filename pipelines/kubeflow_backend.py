"""Recurring runs on Kubeflow Pipelines: one of a name, whatever was there before."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import pathlib
import re
import socket
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from marco_model.errors import ClusterError, InputError

_PROBE_SECONDS = 5.0
_HEALTH_SECONDS = (5.0, 10.0)
_REQUEST_SECONDS = (10.0, 60.0)
_RETRIES = 1
_PAGE = 100


def connect(host: str | None, token_file: pathlib.Path | None = None, ca: pathlib.Path | None = None) -> Any:
    """Returns KFP's client of `host`, by default that of `KF_PIPELINES_ENDPOINT`, of the pod or of kubectl's context.

    `token_file` holds a bearer token, read anew for every request, since such tokens last for hours; `ca` the
    certificates to trust. Other ways in are those of KFP's client: its environment variables and its context file.

    Raises `InputError` where nobody answers within seconds, or where the answer is a refusal.
    """
    import kfp
    import urllib3

    class Client(kfp.Client):
        def _load_config(self, *arguments: Any, **options: Any) -> Any:
            config = super()._load_config(*arguments, **options)
            config.retries = urllib3.Retry(_RETRIES, backoff_factor=0.5)
            if token_file:
                config.refresh_api_key_hook = functools.partial(_renew_token, token_file)
            return config

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            # KFP's own asks five times, with a stack trace each. Its name depends on the version of the client.
            later = getattr(self._healthz_api, "healthz_service_get_healthz_with_http_info", None)
            ask = later or self._healthz_api.get_healthz_with_http_info
            told, _, headers = ask(_request_timeout=_HEALTH_SECONDS)
            if "json" not in headers.get("Content-Type", ""):
                raise InputError(
                    f"{self._existing_config.host} answers with a page, not as Kubeflow Pipelines; mend --host or give "
                    "--token-file where it is a page of login"
                )
            return told

    token = _read_token(token_file) if token_file else None
    if host:
        _probe(host)
    with reaching(host or "Kubeflow Pipelines"):
        client = Client(
            host=host,
            existing_token=token,
            ssl_ca_cert=str(ca) if ca else None,
        )
        api = client._run_api.api_client
        if not host:
            _probe(api.configuration.host)
        client.get_kfp_healthz()
        api.call_api = _timed(api.call_api)
    return client


def _read_token(path: pathlib.Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise InputError(f"--token-file {path} cannot be read: {error.strerror}") from error


def _renew_token(path: pathlib.Path, config: Any) -> None:
    """Gives the client what the file holds now; what it had stays while the file is being replaced."""
    with contextlib.suppress(OSError):
        if token := path.read_text().strip():
            config.api_key["authorization"] = token


def _probe(host: str) -> None:
    """Asks once, shortly, whether anybody is there: the client itself would try for minutes."""
    parts = urllib.parse.urlsplit(host if "://" in host else f"https://{host}")
    name, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(name):
        return
    try:
        socket.create_connection((name, port), _PROBE_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"Kubeflow Pipelines at {host} cannot be reached ({error}); mend --host, or make a way in with kubectl "
            "port-forward --namespace kubeflow service/ml-pipeline-ui 8080:80 and give --host http://localhost:8080, "
            "with --token-file where Kubeflow has several users"
        ) from error


def _timed(call: Callable[..., Any]) -> Callable[..., Any]:
    """Gives each request a limit, which KFP's client has no way to set."""

    @functools.wraps(call)
    def timed(*arguments: Any, **options: Any) -> Any:
        return call(*arguments, **{**options, "_request_timeout": options.get("_request_timeout") or _REQUEST_SECONDS})

    return timed


@contextlib.contextmanager
def reaching(place: str) -> Iterator[None]:
    """Turns what KFP's client raises into one line: `InputError` where `place` refuses, else `ClusterError`."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        said = _said(error)
        if error.status in (401, 403):
            raise InputError(
                f"{place} refuses ({error.status}: {said}); give --token-file with a token that holds and is meant for "
                "Kubeflow (docs/kubeflow.md), or --namespace of a profile of yours"
            ) from error
        if error.status is not None and 400 <= error.status < 500:
            raise InputError(f"{place} does not take this ({error.status}: {said})") from error
        raise ClusterError(f"{place} failed ({error.status}: {said}); run again when it is well") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterError(f"{place} cannot be reached ({' '.join(str(error).split())[:200]}); run again") from error


def _said(error: Any) -> str:
    try:
        told = json.loads(error.body)
        text = told.get("message") or told.get("error") or error.reason
    except (TypeError, ValueError, AttributeError):
        text = error.reason
    return " ".join(str(text).split())[:200]


def pages(listing: Callable[..., Any], field: str, **options: Any) -> Iterator[Any]:
    """Yields what a listing of KFP's client gives, page after page."""
    token = ""
    while True:
        page = listing(page_token=token, page_size=_PAGE, **options)
        yield from getattr(page, field) or []
        token = page.next_page_token or ""
        if not token:
            return


DEFAULT_EXPERIMENT = "marco"


@dataclasses.dataclass(frozen=True)
class Package:
    """A compiled pipeline: its file, its name, its version (of the content), its parameters and its steps."""

    path: pathlib.Path
    name: str
    version: str
    parameters: frozenset[str]
    steps: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Submission:
    """What a run or a schedule is given beside the package; None and empty: as the package and Kubeflow have it."""

    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    pipeline_root: str | None = None
    service_account: str | None = None

    def config(self) -> dict[str, Any]:
        """Returns it as KFP's client takes it."""
        return {
            "params": self.parameters,
            "pipeline_root": self.pipeline_root,
            "service_account": self.service_account,
        }


def read_package(path: pathlib.Path) -> Package:
    """Reads what `marco compile` wrote; raises `InputError` for another file."""
    mend = "give the .yaml file that marco compile wrote"
    if not path.is_file():
        raise InputError(f"there is no package {str(path)!r}; {mend}")
    content = path.read_bytes()
    try:
        spec = next(yaml.safe_load_all(content))
        return Package(
            path=path,
            name=spec["pipelineInfo"]["name"],
            version=hashlib.sha256(content).hexdigest()[:16],
            parameters=frozenset(spec["root"].get("inputDefinitions", {}).get("parameters", {})),
            steps=tuple(spec["root"]["dag"]["tasks"]),
        )
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no compiled pipeline; {mend}") from error


def check_parameters(package: Package, parameters: dict[str, str]) -> None:
    """Raises `InputError` for parameters that the package does not have."""
    if unknown := sorted(set(parameters) - package.parameters):
        known = ", ".join(sorted(package.parameters)) or "none"
        raise InputError(f"the package has no parameter {', '.join(unknown)}; it has {known}")


def find_experiment(client: Any, name: str | None, namespace: str | None, create: bool) -> str:
    """Returns the id of an experiment; the default, `marco`, is made where it is missing, others on demand.

    Raises `InputError` where there is none of this name.
    """
    if there := look_up_experiment(client, name, namespace):
        return there
    if name and not create:
        raise InputError(f"there is no experiment {name!r}; mend --experiment or add --create-experiment")
    with reaching("Kubeflow Pipelines"):
        return str(client.create_experiment(name or DEFAULT_EXPERIMENT, namespace=namespace).experiment_id)


def look_up_experiment(client: Any, name: str | None, namespace: str | None) -> str | None:
    """Returns the id of an experiment, by default `marco`, or None where there is none of this name; makes none."""
    wanted = name or DEFAULT_EXPERIMENT
    with reaching("Kubeflow Pipelines"):
        try:
            return str(client.get_experiment(experiment_name=wanted, namespace=namespace).experiment_id)
        except ValueError:  # KFP's word for "not there".
            return None


def upload(client: Any, package: Package, namespace: str | None = None) -> tuple[str, str, bool]:
    """Returns the ids of the pipeline and of the version that `package` is, and whether it was there already.

    `namespace`: whose pipeline it is, on an installation with several users; by default one that all share.
    The same content is not uploaded twice: a version is named by its content, and so is the description of the first,
    whose name Kubeflow gives.
    """
    note = f"content {package.version}"
    with reaching("Kubeflow Pipelines"):
        pipeline = _pipeline(client, package.name, namespace)
        if pipeline:
            for version in pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline):
                if version.display_name == package.version or version.description == note:
                    return pipeline, str(version.pipeline_version_id), True
            made = client.upload_pipeline_version(
                str(package.path), package.version, pipeline_id=pipeline, description=note
            )
            return pipeline, str(made.pipeline_version_id), False
        pipeline = client.upload_pipeline(
            str(package.path), package.name, description=note, namespace=namespace
        ).pipeline_id
        first = next(pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline))
        return str(pipeline), str(first.pipeline_version_id), False


def _pipeline(client: Any, name: str, namespace: str | None) -> str | None:
    """Returns the id of the pipeline of this name in this namespace, in which KFP's own look-up cannot look."""
    named = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    there = pages(client.list_pipelines, "pipelines", namespace=namespace, filter=json.dumps({"predicates": [named]}))
    return next((str(one.pipeline_id) for one in there), None)


def start(
    client: Any,
    experiment: str,
    name: str,
    pipeline: str,
    version: str,
    submission: Submission,
    anew: pathlib.Path | None = None,
) -> str:
    """Starts a run and returns its id; where `anew` is the package's file, the run reuses no step.

    Kubeflow has no such switch for a version, so that run carries the package itself.
    """
    if anew:
        what: dict[str, Any] = {"pipeline_package_path": str(anew), "enable_caching": False}
    else:
        what = {"pipeline_id": pipeline, "version_id": version}
    with reaching("Kubeflow Pipelines"):
        run = client.run_pipeline(experiment_id=experiment, job_name=name, **what, **submission.config())
    return str(run.run_id)


_POLL_SECONDS = 5.0
_PATIENCE_SECONDS = 300.0
_DONE = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


def follow(
    client: Any, run: str, steps: tuple[str, ...] = (), poll: float = _POLL_SECONDS, patience: float = _PATIENCE_SECONDS
) -> None:
    """Returns when the run has succeeded.

    `steps`: names to tell of; where empty, all but those that Kubeflow itself adds. `poll`: seconds between two looks.
    `patience`: for how many seconds Kubeflow may fail to answer before it is given up.

    Raises `ClusterError` where the run failed or was cancelled, with the failed steps' messages, or Kubeflow fails,
    `InputError` where it refuses, as it does once a token has expired.
    """
    told: dict[str, str] = {}
    goes_on = f"the run goes on: marco submit --follow {run}"
    heard, there = time.monotonic(), False
    while True:
        try:
            with reaching("Kubeflow Pipelines"):
                seen = client.get_run(run)
        except ClusterError as error:
            if time.monotonic() - heard > patience:
                raise ClusterError(f"{error}; {goes_on}") from error
            time.sleep(poll)
            continue
        except InputError as error:
            if there:
                raise InputError(f"{error}; {goes_on}") from error
            raise
        heard, there = time.monotonic(), True
        every = _tasks(seen)
        names = {task.display_name for task in every}
        tasks = [task for task in every if _is_step(task.display_name, steps, names)]
        for task in tasks:
            _tell(task, "SKIPPED" if _is_reused(task, every) else task.state or "PENDING", told)
        if seen.state in _DONE:
            _end(client, run, seen, tasks)
            return
        time.sleep(poll)


def _tasks(run: Any) -> list[Any]:
    details = run.run_details
    return list(details.task_details or []) if details else []


def _is_step(name: str, steps: tuple[str, ...], names: set[str]) -> bool:
    """Tells steps from what Kubeflow adds: the whole, a driver beside each step, executors in it and their retries."""
    if steps:
        return name in steps
    return name != "root" and f"{name}-driver" in names


def _is_reused(task: Any, every: list[Any]) -> bool:
    """Says whether the step succeeded without its executor: so Kubeflow tells of a cache hit.

    A step names its children by the ids of Argo's nodes, and these tell of themselves by the names of pods; both end
    in the same number. Source: `NodeStatuses` and `toModelTask` in the API server of Kubeflow Pipelines, and the `When`
    of its compiler's `addContainerExecutorTemplate`.
    """
    children = {_number(child.pod_name) for child in task.child_tasks or [] if child.pod_name}
    return task.state == "SUCCEEDED" and any(
        other.display_name == "executor" and other.state == "SKIPPED" and _number(other.pod_name) in children
        for other in every
    )


def _number(name: str | None) -> str:
    return (name or "").rpartition("-")[2]


def _tell(task: Any, state: str, told: dict[str, str]) -> None:
    if told.get(task.display_name) == state or state not in _DONE | {"RUNNING"}:
        return
    told[task.display_name] = state
    words = {"RUNNING": "running", "SUCCEEDED": "done", "SKIPPED": "unchanged, reused", "CANCELED": "cancelled"}
    text = words.get(state, "failed")
    if state == "SUCCEEDED" and task.start_time and task.end_time:
        text = f"done in {(task.end_time - task.start_time).total_seconds():.0f} s"
    print(f"{task.display_name}: {text}", file=sys.stderr, flush=True)


def _end(client: Any, run: str, seen: Any, tasks: list[Any]) -> None:
    if seen.state == "SUCCEEDED":
        return
    failed = [f"{task.display_name}{_message(task)}" for task in tasks if task.state == "FAILED"]
    what = f"failed at {', '.join(failed)}" if failed else f"ended as {seen.state}"
    raise ClusterError(
        f"run {run} {what}{_message(seen)}; its log is at {client._get_url_prefix()}/#/runs/details/{run}; mend it and "
        "submit again: finished steps are reused"
    )


def _message(told: Any) -> str:
    """Returns the error of a run or step in brackets, or nothing: most versions of Kubeflow Pipelines tell of none."""
    errors = [told.error, *(past.error for past in reversed(told.state_history or []))]
    message = next((error.message for error in errors if error and error.message), "")
    return f" ({' '.join(message.split())[:300]})" if message else ""


_KUBEFLOW = "Kubeflow Pipelines"


def read_cron(text: str) -> tuple[str, str]:
    """Returns a cron expression as Kubeflow wants it, seconds first, and in words; five fields get a 0 in front.

    Raises `InputError` for what is no such expression.
    """
    from cronsim import CronSim, CronSimError

    fields = text.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    try:
        if len(fields) != 6:
            raise CronSimError("Wrong number of fields")
        # Kubeflow reads cron as robfig/cron 1 does: "?" is "*", Sunday is 0 alone, and L, W and # mean nothing.
        if re.search(r"[LW#](?![A-Z])|(?<![\w/*])7", fields[5]) or re.search(r"[LW#]", fields[3]):
            raise CronSimError("to Kubeflow Sunday is 0, and L, W and # mean nothing")
        read = CronSim(" ".join(fields).replace("?", "*"), datetime.datetime(2000, 1, 1))
        return " ".join(fields), read.explain()
    except CronSimError as error:
        said = str(error)
        raise InputError(
            f"--cron {text!r}: {said[:1].lower()}{said[1:]}; write second, minute, hour, day, month and weekday, as in "
            "'0 0 3 * * 1' for Mondays at three"
        ) from error


def ensure(
    client: Any,
    name: str,
    experiment: str,
    cron: str,
    pipeline: str,
    version: str,
    submission: Submission,
    max_concurrency: int = 1,
) -> tuple[str, str]:
    """Makes `name` the one recurring run of its name in the experiment, and returns its id and what was done.

    That is `unchanged`, `made` or `replaced`. The new one is made before the old ones go, so that at no moment there is
    none; where this is interrupted between, the next call removes what is too much.

    Raises what `pipelines.kubeflow_backend.reaching` does.
    """
    wanted = {
        "cron": cron,
        "version": version,
        "parameters": submission.parameters,
        "pipeline_root": submission.pipeline_root or "",
        "service_account": submission.service_account or "",
        "max_concurrency": max_concurrency,
    }
    # Kubeflow shows neither all of it nor as it was given.
    note = json.dumps(wanted, sort_keys=True)
    with reaching(_KUBEFLOW):
        there = find(client, name, experiment)
        same = [one for one in there if one.description == note and one.mode == "ENABLE"]
        if same:
            for other in there:
                if other.recurring_run_id != same[0].recurring_run_id:
                    client.delete_recurring_run(other.recurring_run_id)
            return str(same[0].recurring_run_id), "unchanged"
        made = client.create_recurring_run(
            experiment_id=experiment,
            job_name=name,
            description=note,
            cron_expression=cron,
            max_concurrency=max_concurrency,
            no_catchup=True,
            pipeline_id=pipeline,
            version_id=version,
            **submission.config(),
        )
        for other in there:
            client.delete_recurring_run(other.recurring_run_id)
    return str(made.recurring_run_id), "replaced" if there else "made"


def remove(client: Any, name: str, experiment: str) -> int:
    """Deletes the recurring runs of this name and returns how many there were."""
    with reaching(_KUBEFLOW):
        there = find(client, name, experiment)
        for one in there:
            client.delete_recurring_run(one.recurring_run_id)
    return len(there)


def find(client: Any, name: str | None, experiment: str) -> list[Any]:
    """Returns the recurring runs of an experiment, all or those of a name."""
    listed = pages(client.list_recurring_runs, "recurring_runs", experiment_id=experiment)
    return [one for one in listed if name is None or one.display_name == name]
