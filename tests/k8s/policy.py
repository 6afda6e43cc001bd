"""The project's own rules for its manifests, beyond the schemas and the Pod Security Standard.

A rule takes the `spec` of a pod and yields what is wrong with it; a check takes all objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.k8s.rendering import pods as pods_of

Item = dict[str, Any]
Rule = Callable[[Item], Iterator[str]]


def _containers(spec: Item) -> list[Item]:
    return [container for kind in ("initContainers", "containers") for container in spec.get(kind, [])]


def read_only_root(spec: Item) -> Iterator[str]:
    """Containers write to volumes only."""
    for container in _containers(spec):
        if (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is not True:
            yield f"container {container['name']} may write to its root file system"


def resources(spec: Item) -> Iterator[str]:
    """Each container asks for CPU and memory and has a limit of memory."""
    for container in _containers(spec):
        declared = container.get("resources") or {}
        limits = declared.get("limits", {})
        requests = {**limits, **declared.get("requests", {})}
        missing = [f"requests.{key}" for key in ("cpu", "memory") if key not in requests]
        missing += [] if "memory" in limits else ["limits.memory"]
        if missing:
            yield f"container {container['name']} has no {', '.join(missing)}"


PLACEHOLDER = f"sha256:{'0' * 64}"
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


def image_digests(spec: Item) -> Iterator[str]:
    """Images are named by registry, name and digest, and the digest is not the placeholder."""
    for container in _containers(spec):
        image = container.get("image", "")
        if not _DIGEST.fullmatch(image) or "." not in image.split("/")[0]:
            yield f"container {container['name']}: {image} is not of the form registry/name@sha256:digest"
        elif image.endswith(PLACEHOLDER):
            yield f"container {container['name']}: {image} is a placeholder"


_SECRET_NAME = re.compile(r"(?i)(passw|secret|token|credential|access_?key|api_?key)")
_USER_INFO = re.compile(r"\w+://[^/\s:@]+:[^/\s@]+@")


def secret_values(spec: Item) -> Iterator[str]:
    """Secrets come from Secrets, never as text."""
    for container in _containers(spec):
        for variable in container.get("env", []):
            if variable.get("value") and _SECRET_NAME.search(variable["name"]):
                yield f"container {container['name']}: {variable['name']} has its value in the manifest"
        for text in [
            *container.get("command", []),
            *container.get("args", []),
            *(v.get("value", "") for v in container.get("env", [])),
        ]:
            if _USER_INFO.search(text or ""):
                yield f"container {container['name']}: a URL with a password in it"


OWN = {rule.__name__: rule for rule in (read_only_root, resources, image_digests, secret_values)}


def probes(objects: list[Item]) -> list[str]:
    """Every service has a readiness and a liveness probe."""
    return [
        f"{name}: container {container['name']} has no {probe}"
        for name, pod in pods_of(objects)
        if not name.startswith(("CronJob/", "Job/", "JobSet/"))
        for container in pod["spec"]["containers"]
        for probe in ("readinessProbe", "livenessProbe")
        if probe not in container
    ]


def sidecars(objects: list[Item]) -> list[str]:
    """No pod gets Istio's proxy, which Kubeflow injects into the pods of a profile's namespace."""
    return [
        f"{name} does not refuse Istio's proxy"
        for name, pod in pods_of(objects)
        if pod["metadata"].get("labels", {}).get("sidecar.istio.io/inject") != "false"
    ]


def findings(rules: dict[str, Rule], pods: Iterator[tuple[str, Item]]) -> list[str]:
    """Returns the violations of the rules in the pods as `Kind/name: rule: what is wrong`."""
    return [
        f"{name}: {title}: {what}" for name, pod in pods for title, rule in rules.items() for what in rule(pod["spec"])
    ]


def wildcards(objects: list[Item]) -> list[str]:
    """No Role grants a verb, resource or API group by `*`, and none is cluster-wide."""
    problems = []
    for item in objects:
        if item["kind"] in {"ClusterRole", "ClusterRoleBinding"}:
            problems.append(f"{item['kind']}/{item['metadata']['name']} reaches beyond the namespace")
        for rule in item.get("rules", []) if item["kind"] in {"Role", "ClusterRole"} else []:
            for field in ("verbs", "resources", "apiGroups"):
                if any("*" in value for value in rule.get(field, [])):
                    problems.append(f"{item['kind']}/{item['metadata']['name']}: {field} {rule[field]}")
    return problems


def secrets_in_manifests(objects: list[Item]) -> list[str]:
    """No Secret has a value."""
    return [
        f"Secret/{item['metadata']['name']} has values"
        for item in objects
        if item["kind"] == "Secret" and (item.get("data") or item.get("stringData"))
    ]


def tokens(objects: list[Item]) -> list[str]:
    """No pod gets a token of the Kubernetes API, which no service here calls."""
    accounts = {item["metadata"]["name"]: item for item in objects if item["kind"] == "ServiceAccount"}
    problems = []
    for name, pod in pods_of(objects):
        account = accounts.get(pod["spec"].get("serviceAccountName", "default"), {})
        if pod["spec"].get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)):
            problems.append(f"{name} is handed a token")
    return problems
