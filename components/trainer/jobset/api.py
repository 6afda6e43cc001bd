"""What a training asks of the Kubernetes API, with patience; its answers as plain errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from components.trainer.jobset.manifest import API_VERSION
from marco_model.errors import ClusterError

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and without a byte."""

RETRIES = 6
"""After 0, 1, 2, 4, 8 and 16 s, or as the API's Retry-After says."""

_GROUP, _VERSION = API_VERSION.split("/")
_PLURAL = "jobsets"
_JOBSET = "jobset.sigs.k8s.io/jobset-name"


class Unreachable(ClusterError):
    """The API did not answer, or answered that it can't, for all of the retries."""


class Conflict(ClusterError):
    """There is one of that name."""


class Api:
    """JobSets and pods of one namespace.

    Its methods raise `ClusterError` where the API refuses, `Unreachable` where it does not answer.
    """

    def __init__(self, namespace: str, retries: int = RETRIES) -> None:
        """Takes the pod's own service account, outside a cluster kubectl's configuration.

        Raises `ClusterError` where there is neither.
        """
        import urllib3
        from kubernetes import client, config

        self.namespace = namespace
        configuration = client.Configuration()
        try:
            try:
                config.load_incluster_config(client_configuration=configuration)
            except config.ConfigException:
                config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise ClusterError(
                f"there is no way to the Kubernetes API ({error}); run on a cluster, or have kubectl configured"
            ) from error
        # All methods: what may have been done when the connection was lost is looked at by the caller (409, 404).
        configuration.retries = urllib3.Retry(
            total=retries,
            backoff_factor=0.5,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
        )
        api = client.ApiClient(configuration)
        self._core, self._custom = client.CoreV1Api(api), client.CustomObjectsApi(api)

    def create(self, body: dict[str, Any]) -> None:
        """Creates a JobSet; raises `Conflict` where there is one of its name."""
        with _answers(f"create the JobSet {body['metadata']['name']}", self.namespace):
            self._custom.create_namespaced_custom_object(
                _GROUP, _VERSION, self.namespace, _PLURAL, body, _request_timeout=TIMEOUT
            )

    def get(self, name: str) -> dict[str, Any] | None:
        """Returns a JobSet, None where there is none of that name."""
        with _answers(f"read the JobSet {name}", self.namespace, none=True):
            return self._custom.get_namespaced_custom_object(
                _GROUP, _VERSION, self.namespace, _PLURAL, name, _request_timeout=TIMEOUT
            )
        return None

    def delete(self, name: str) -> None:
        """Has a JobSet deleted, after all that it made; it may be gone already."""
        with _answers(f"delete the JobSet {name}", self.namespace, none=True):
            self._custom.delete_namespaced_custom_object(
                _GROUP,
                _VERSION,
                self.namespace,
                _PLURAL,
                name,
                propagation_policy="Foreground",
                _request_timeout=TIMEOUT,
            )

    def pods(self, jobset: str) -> list[Any]:
        """Returns the pods of a JobSet, the oldest first."""
        with _answers("list pods", self.namespace):
            listed = self._core.list_namespaced_pod(
                self.namespace, label_selector=f"{_JOBSET}={jobset}", _request_timeout=TIMEOUT
            )
        return sorted(listed.items, key=lambda pod: pod.metadata.creation_timestamp)

    def pod(self, name: str) -> Any | None:
        """Returns a pod, None where there is none of that name."""
        with _answers(f"read the pod {name}", self.namespace, none=True):
            return self._core.read_namespaced_pod(name, self.namespace, _request_timeout=TIMEOUT)
        return None

    def log(self, pod: str, **options: Any) -> str:
        """Returns lines of a pod's log, with time stamps; empty where there is none yet, or no pod any more.

        `options`: `since_seconds`, `tail_lines`.
        """
        from kubernetes.client import ApiException

        with _answers(f"read the log of {pod}", self.namespace, none=True):
            try:
                # As bytes, which need not be UTF-8 where a line was cut.
                answer = self._core.read_namespaced_pod_log(
                    pod, self.namespace, timestamps=True, _preload_content=False, _request_timeout=TIMEOUT, **options
                )
            except ApiException as error:
                if error.status == 400:  # Its container has not started.
                    return ""
                raise
            return answer.data.decode(errors="replace")
        return ""


@contextlib.contextmanager
def _answers(what: str, namespace: str, *, none: bool = False) -> Iterator[None]:
    """Turns the client's exceptions into ours; with `none`, what is not there is no error."""
    import urllib3
    from kubernetes.client import ApiException

    try:
        yield
    except ApiException as error:
        told = f"the Kubernetes API answers {error.status} to: {what} in namespace {namespace}"
        detail = " ".join(str(error.body or error.reason).split())[:300]
        if error.status == 404:
            if none:
                return
            raise ClusterError(f"{told}; install JobSet and make the namespace, see docs/kubeflow.md") from error
        if error.status in (401, 403):
            raise ClusterError(
                f"{told}; run the steps as a service account that may, such as marco-pipeline of k8s/ "
                f"(docs/kubeflow.md): {detail}"
            ) from error
        if error.status == 409:
            raise Conflict(f"{told}: {detail}") from error
        kind = Unreachable if error.status == 429 or error.status >= 500 else ClusterError
        raise kind(f"{told}: {detail}") from error
    except urllib3.exceptions.HTTPError as error:
        detail = " ".join(str(error).split())[:300]
        raise Unreachable(
            f"the Kubernetes API does not answer to: {what} in namespace {namespace}: {detail}"
        ) from error
