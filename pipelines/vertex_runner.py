"""Compiles the graph for Vertex AI Pipelines: Kubeflow Pipelines' package, as JSON, without what Kubernetes knows.

Steps run by the same entrypoint. Vertex AI mounts buckets at `/gcs/`, where `components.cluster.entrypoint` looks for
artifacts on `gs://`; checkpoints, models and data are read and written on `gs://` itself.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from components.cluster.options import Resources
from marco_model.errors import InputError
from pipelines import kubeflow_package
from pipelines.cluster import Cluster
from pipelines.configuration import Configuration

_KUBERNETES_GPU = Resources().accelerator
DEFAULT_ACCELERATOR = "NVIDIA_TESLA_T4"


def compile_package(configuration: Configuration, root: str, output: pathlib.Path) -> int:
    """Writes the pipeline of `configuration` to `output`, a `.json` file, and returns the number of its steps.

    `root`: a `gs://` URI below which all that a run keeps lies. Raises `InputError` for another root or ending, or
    where the configuration asks for what only Kubernetes has.
    """
    if output.suffix != ".json":
        raise InputError(f"--output is {output}; for Vertex AI give a .json file")
    if not root.startswith("gs://"):
        raise InputError(f"--root is {root}; Vertex AI keeps artifacts in a bucket, give gs://BUCKET/FOLDER")
    check(configuration.cluster)
    # Heavy: TFX.
    from pipelines.kubeflow_runner import package_of

    package = package_of(configuration, root, _custom_job(configuration))
    accelerator = configuration.vertex.accelerator if configuration.vertex else DEFAULT_ACCELERATOR
    kubeflow_package.add_resources(package, _renamed(configuration.cluster, accelerator))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(package, indent=1, sort_keys=True) + "\n")
    return len(package["root"]["dag"]["tasks"])


def check(cluster: Cluster) -> None:
    """Raises `InputError` for what a step can't be given there.

    Selectors, tolerations and shared memory are left out without a word: they say where on a cluster a pod runs.
    """
    for field, instead in {
        "volumes": "put data and checkpoints on gs://",
        "shared": "checkpoints lie below --root",
        "secrets": "give the service account of the steps the right to read what they need",
        "replicas": "give machines, those of Vertex AI",
    }.items():
        if getattr(cluster, field):
            raise InputError(f"cluster.{field} is set, which Vertex AI does not have; {instead}")


def _custom_job(configuration: Configuration) -> dict[str, Any] | None:
    """Returns what the Trainer step is told of a training on several machines, None where it trains by itself."""
    if not configuration.machines:
        return None
    if not configuration.vertex:
        raise InputError("machines is set and vertex is not; give vertex.project and vertex.location")
    return {
        "place": dataclasses.asdict(configuration.vertex),
        "machines": dataclasses.asdict(configuration.machines),
        "image": configuration.cluster.image,
        "environment": dict(configuration.cluster.environment),
    }


def _renamed(cluster: Cluster, accelerator: str) -> Cluster:
    """Returns the cluster with Vertex AI's name for GPUs that have Kubernetes' own."""

    def renamed(one: Resources) -> Resources:
        ours = one.accelerator == _KUBERNETES_GPU
        return dataclasses.replace(one, accelerator=accelerator) if ours else one

    steps = {name: renamed(one) for name, one in cluster.steps.items()}
    return dataclasses.replace(cluster, default=renamed(cluster.default), steps=steps)
