"""The Kubernetes API as a check asks it: requests by path, so that the versions of the API are the cluster's own."""

import contextlib
from typing import Any

import urllib3
from kubernetes import client

from components.trainer import jobset_api
from marco_model import errors
from pipelines.cluster_check.needs import HiddenError, Object

KUBEFLOW, ACCOUNT = "kubeflow", "marco-pipeline"


class Api:
    """The Kubernetes API, of the pod or of kubectl's configuration."""

    def __init__(self, namespace: str) -> None:
        """Connects as `components.trainer.jobset_api.connect` does."""
        self.namespace, self._client = namespace, jobset_api.connect(retries=2)
        self._known: dict[str, Object | None] = {}

    def get(self, path: str) -> Object | None:
        """Returns what is at `path`, read once; None if nothing is, `HiddenError` is raised if it may not be read."""
        if path not in self._known:
            self._known[path] = self._request("GET", path)
        return self._known[path]

    def own(self, path: str, namespace: str = "") -> Object | None:
        """As `get`, of a namespace, the runs' by default: `path` such as `secrets/NAME` is of the API's core."""
        return self.get(f"/api/v1/namespaces/{namespace or self.namespace}/{path}")

    def items(self, path: str, hidden_as_empty: bool = False) -> list[Object]:
        """Returns the items of a list; with `hidden_as_empty` none where they may not be read."""
        with contextlib.suppress(*([HiddenError] if hidden_as_empty else [])):
            return list((self.get(path) or {}).get("items") or [])
        return []

    def may(self, verb: str, group: str, resource: str, name: str = "", account: str = "") -> bool:
        """Returns whether the user or a service account has a right in the namespace; this leaves no object behind."""
        resource, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name}
        spec: dict[str, Any] = {"resourceAttributes": {"namespace": self.namespace, **attributes}}
        if account:
            group_names = ("system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated")
            spec |= {"user": f"system:serviceaccount:{self.namespace}:{account}", "groups": list(group_names)}
        kind = "SubjectAccessReview" if account else "SelfSubjectAccessReview"
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        answer = self._request("POST", f"/apis/authorization.k8s.io/v1/{kind.lower()}s", review)
        return bool(answer and answer["status"].get("allowed"))

    def _request(self, method: str, path: str, body: Object | None = None) -> Object | None:
        try:
            answer = self._client.call_api(
                path,
                method,
                header_params={"Accept": "application/json"},
                body=body,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=jobset_api.TIMEOUT,
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            if error.status == 401:
                login = "log in again (kubectl auth whoami), or have kubectl's plugin for it installed"
                raise errors.InputError(f"the Kubernetes API does not know you (401); {login}") from error
            if error.status == 403:
                raise HiddenError(f"{error.status} {errors.one_line(error.reason or '')}".strip()) from error
            raise errors.ClusterError(f"the Kubernetes API answers {error.status} to {method} {path}") from error
        except urllib3.exceptions.HTTPError as error:
            raise errors.ClusterError(f"the Kubernetes API cannot be reached ({errors.one_line(error)})") from error
        if not isinstance(answer, dict):
            page = "answers with a page, not as the Kubernetes API; log in, or fix that address"
            raise errors.InputError(f"{self._client.configuration.host} {page}")
        return answer
