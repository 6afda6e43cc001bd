"""What `marco submit` and `marco schedule` ask of Kubeflow Pipelines, through KFP's own client."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from marco_model.errors import ClusterError, InputError

DEFAULT_EXPERIMENT = "marco"
_PROBE_SECONDS = 5.0
_HEALTH_SECONDS = (5.0, 10.0)
_REQUEST_SECONDS = (10.0, 60.0)
_RETRIES = 1
_PAGE = 100


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


def connect(host: str | None, token_file: pathlib.Path | None = None, ca: pathlib.Path | None = None) -> Any:
    """Returns KFP's client of `host`, by default that of `KF_PIPELINES_ENDPOINT`, of the pod or of kubectl's context.

    `token_file` holds a bearer token, `ca` the certificates to trust. Other ways in are those of KFP's client: its
    environment variables and its context file.

    Raises `InputError` where nobody answers within seconds, or where the answer is a refusal.
    """
    import kfp
    import urllib3

    class Client(kfp.Client):
        def _load_config(self, *arguments: Any, **options: Any) -> Any:
            config = super()._load_config(*arguments, **options)
            config.retries = urllib3.Retry(_RETRIES, backoff_factor=0.5)
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
            "port-forward service/ml-pipeline-ui 8080:80 and give --host http://localhost:8080"
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
                f"{place} refuses ({error.status}: {said}); give --token-file, or --namespace of a profile of yours"
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


def find_experiment(client: Any, name: str | None, namespace: str | None, create: bool) -> str:
    """Returns the id of an experiment; the default, `marco`, is made where it is missing, others on demand.

    Raises `InputError` where there is none of this name.
    """
    wanted = name or DEFAULT_EXPERIMENT
    with reaching("Kubeflow Pipelines"):
        try:
            return str(client.get_experiment(experiment_name=wanted, namespace=namespace).experiment_id)
        except ValueError as error:
            if name and not create:
                raise InputError(
                    f"there is no experiment {wanted!r} ({error}); mend --experiment or add --create-experiment"
                ) from error
        return str(client.create_experiment(wanted, namespace=namespace).experiment_id)


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


def pages(listing: Callable[..., Any], field: str, **options: Any) -> Iterator[Any]:
    """Yields what a listing of KFP's client gives, page after page."""
    token = ""
    while True:
        page = listing(page_token=token, page_size=_PAGE, **options)
        yield from getattr(page, field) or []
        token = page.next_page_token or ""
        if not token:
            return


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
