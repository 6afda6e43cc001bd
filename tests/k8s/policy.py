"""What the project demands of its manifests beyond their schemas and the Pod Security Standard.

A rule takes the `spec` of a pod and yields what it finds wrong; a check takes all objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Item = dict[str, Any]
Rule = Callable[[Item], Iterator[str]]
Pods = Callable[[list[Item]], Iterator[tuple[str, Item]]]


def _containers(spec: Item) -> list[Item]:
    return [one for kind in ("initContainers", "containers") for one in spec.get(kind, [])]


def read_only_root(spec: Item) -> Iterator[str]:
    """Containers write to volumes alone."""
    for one in _containers(spec):
        if (one.get("securityContext") or {}).get("readOnlyRootFilesystem") is not True:
            yield f"container {one['name']} may write to its root file system"


def resources(spec: Item) -> Iterator[str]:
    """Each container asks for CPU and memory and has a limit of memory."""
    for one in _containers(spec):
        given = one.get("resources") or {}
        asked, limit = {**given.get("limits", {}), **given.get("requests", {})}, given.get("limits", {})
        missing = [f"requests.{key}" for key in ("cpu", "memory") if key not in asked]
        missing += [] if "memory" in limit else ["limits.memory"]
        if missing:
            yield f"container {one['name']} has no {', '.join(missing)}"


PLACEHOLDER = f"sha256:{'0' * 64}"
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


def image_digests(spec: Item) -> Iterator[str]:
    """Images are named by registry, name and digest, and the digest is one."""
    for one in _containers(spec):
        image = one.get("image", "")
        if not _DIGEST.fullmatch(image) or "." not in image.split("/")[0]:
            yield f"container {one['name']}: {image} is not of the form registry/name@sha256:digest"
        elif image.endswith(PLACEHOLDER):
            yield f"container {one['name']}: {image} is a placeholder"


_SECRET_NAME = re.compile(r"(?i)(passw|secret|token|credential|access_?key|api_?key)")
_USER_INFO = re.compile(r"\w+://[^/\s:@]+:[^/\s@]+@")


def secret_values(spec: Item) -> Iterator[str]:
    """Secrets come from Secrets, never as text."""
    for one in _containers(spec):
        for variable in one.get("env", []):
            if variable.get("value") and _SECRET_NAME.search(variable["name"]):
                yield f"container {one['name']}: {variable['name']} has its value in the manifest"
        for text in [*one.get("command", []), *one.get("args", []), *(v.get("value", "") for v in one.get("env", []))]:
            if _USER_INFO.search(text or ""):
                yield f"container {one['name']}: a URL with a password in it"


OWN = {rule.__name__: rule for rule in (read_only_root, resources, image_digests, secret_values)}


def probes(objects: list[Item], pods: Pods) -> list[str]:
    """What serves has a readiness and a liveness probe."""
    return [
        f"{name}: container {one['name']} has no {probe}"
        for name, pod in pods(objects)
        if not name.startswith(("CronJob/", "Job/", "JobSet/"))
        for one in pod["spec"]["containers"]
        for probe in ("readinessProbe", "livenessProbe")
        if probe not in one
    ]


def sidecars(objects: list[Item], pods: Pods) -> list[str]:
    """No pod is given Istio's proxy, which Kubeflow has put into the pods of a profile's namespace."""
    return [
        f"{name} does not refuse Istio's proxy"
        for name, pod in pods(objects)
        if pod["metadata"].get("labels", {}).get("sidecar.istio.io/inject") != "false"
    ]


def findings(rules: dict[str, Rule], pods: Iterator[tuple[str, Item]]) -> list[str]:
    """Returns what the rules find in the pods, `Kind/name: rule: what is wrong`."""
    return [
        f"{name}: {title}: {what}" for name, pod in pods for title, rule in rules.items() for what in rule(pod["spec"])
    ]


def wildcards(objects: list[Item]) -> list[str]:
    """No Role grants a verb, resource or API group by `*`, and none is cluster-wide."""
    found = []
    for item in objects:
        if item["kind"] in {"ClusterRole", "ClusterRoleBinding"}:
            found.append(f"{item['kind']}/{item['metadata']['name']} reaches beyond the namespace")
        for rule in item.get("rules", []) if item["kind"] in {"Role", "ClusterRole"} else []:
            for field in ("verbs", "resources", "apiGroups"):
                if any("*" in value for value in rule.get(field, [])):
                    found.append(f"{item['kind']}/{item['metadata']['name']}: {field} {rule[field]}")
    return found


def secrets_in_manifests(objects: list[Item]) -> list[str]:
    """No Secret with a value."""
    return [
        f"Secret/{item['metadata']['name']} has values"
        for item in objects
        if item["kind"] == "Secret" and (item.get("data") or item.get("stringData"))
    ]


def tokens(objects: list[Item], pods: Pods) -> list[str]:
    """No pod is handed a token of the Kubernetes API: what serves needs none."""
    accounts = {item["metadata"]["name"]: item for item in objects if item["kind"] == "ServiceAccount"}
    found = []
    for name, pod in pods(objects):
        account = accounts.get(pod["spec"].get("serviceAccountName", "default"), {})
        if pod["spec"].get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)):
            found.append(f"{name} is handed a token")
    return found
