"""The way to Kubeflow Pipelines: KFP's own client, with limits, and its errors in one line."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

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
