"""Everything that the manifests name exists: among them, or made first as k8s/README.md says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from pipelines.cluster_check.network import matches
from tests.k8s.rendering import pods

Item = dict[str, Any]

# Labels of pods that controllers make at run time, one entry per controller, for the selectors.
FOREIGN = {
    "a step of a run (Argo Workflows)": {"workflows.argoproj.io/workflow": "marco-x7k2p"},
    "previews of artifacts (Kubeflow Pipelines)": {"app": "ml-pipeline-ui-artifact"},
    "a replica of a training (JobSet)": {"jobset.sigs.k8s.io/jobset-name": "marco-x7k2p"},
}


def secrets_to_make(text: str) -> dict[str, set[str]]:
    """Returns the Secrets, by name their keys, that the commands in a text make."""
    made: dict[str, set[str]] = {}
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if kind := re.search(r"create secret (generic|docker-registry) ", line):
                words = shlex.split(line, comments=True)
                keys = {word.split("=")[1] for word in words if word.startswith("--from-literal=")}
                made.setdefault(words[words.index(kind[1]) + 1], set()).update(keys)
    return made


def missing(objects: list[Item], secrets: dict[str, set[str]]) -> list[str]:
    """Returns a problem for each name in the manifests that does not exist."""
    existing = {(item["kind"], item["metadata"]["name"]) for item in objects}
    existing |= {("Secret", name) for name in secrets}
    existing |= {("Secret key", f"{name} {key}") for name, keys in secrets.items() for key in keys}
    named = [reference for name, pod in pods(objects) for reference in _of_pod(name, pod["spec"])]
    named += [reference for item in objects for reference in _of_object(item)]
    return [f"{source}: no {kind} {name}" for source, kind, name in named if (kind, name) not in existing]


def _of_pod(source: str, spec: Item) -> Iterator[tuple[str, str, str]]:
    if "serviceAccountName" in spec:
        yield source, "ServiceAccount", spec["serviceAccountName"]
    if "priorityClassName" in spec:
        yield source, "PriorityClass", spec["priorityClassName"]
    for volume in spec.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            yield source, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
        if "secret" in volume:
            yield source, "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield source, "ConfigMap", volume["configMap"]["name"]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for group in container.get("envFrom", []):
            for key, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if key in group:
                    yield source, kind, group[key]["name"]
        for variable in container.get("env", []):
            source_of = variable.get("valueFrom", {})
            if "secretKeyRef" in source_of:
                yield source, "Secret key", f"{source_of['secretKeyRef']['name']} {source_of['secretKeyRef']['key']}"
            if "configMapKeyRef" in source_of:
                yield source, "ConfigMap", source_of["configMapKeyRef"]["name"]


def _of_object(item: Item) -> Iterator[tuple[str, str, str]]:
    source, spec = f"{item['kind']}/{item['metadata']['name']}", item.get("spec", {})
    if item["kind"] == "RoleBinding":
        yield source, item["roleRef"]["kind"], item["roleRef"]["name"]
        for subject in item["subjects"]:
            yield source, subject["kind"], subject["name"]
    if item["kind"] == "ServiceAccount":
        yield from ((source, "Secret", secret["name"]) for secret in item.get("imagePullSecrets", []))
    if item["kind"] == "StatefulSet":
        yield source, "Service", spec["serviceName"]
    if item["kind"] == "InferenceService":
        model = spec["predictor"]["model"]
        yield source, "ServingRuntime", model["runtime"]
        if model.get("storageUri", "").startswith("pvc://"):
            yield source, "PersistentVolumeClaim", model["storageUri"].removeprefix("pvc://").split("/")[0]


def idle_selectors(objects: list[Item]) -> list[str]:
    """Returns the selectors of Services, NetworkPolicies and budgets that match no pod, and ports that no pod has."""
    templates = [pod["metadata"]["labels"] for _, pod in pods(objects)] + list(FOREIGN.values())
    problems = [
        f"{item['kind']}/{item['metadata']['name']}: {selector} matches no pod"
        for item in objects
        for selector in _selectors(item)
        if not any(matches(selector, labels) for labels in templates)
    ]
    for item in objects:
        if item["kind"] == "Service":
            selected = [pod for _, pod in pods(objects) if matches(_selectors(item)[0], pod["metadata"]["labels"])]
            ports = [
                port
                for pod in selected
                for container in pod["spec"]["containers"]
                for port in container.get("ports", [])
            ]
            known = {value for port in ports for value in (port.get("name"), port["containerPort"])}
            problems += [
                f"Service/{item['metadata']['name']}: no pod has the port {target}"
                for port in item["spec"]["ports"]
                if (target := port.get("targetPort", port["port"])) not in known
            ]
    return problems


def _selectors(item: Item) -> list[Item]:
    spec = item.get("spec", {})
    if item["kind"] == "Service":
        return [{"matchLabels": spec["selector"]}]
    if item["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
        return [spec["selector"]]
    if item["kind"] == "NetworkPolicy":
        rules = [*spec.get("ingress", []), *spec.get("egress", [])]
        peers = [peer for rule in rules for peer in [*rule.get("from", []), *rule.get("to", [])]]
        return [spec["podSelector"], *(peer["podSelector"] for peer in peers if "podSelector" in peer)]
    return []
