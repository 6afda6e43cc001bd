"""The JobSet of a training (https://jobset.sigs.k8s.io, v1alpha2): who runs where, with what, told of whom.

Pods of a JobSet have stable host names, `<jobset>-<job>-<index>-<pod>.<subdomain>`, so that `TF_CONFIG` is known before
there is a pod.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from components.cluster.options import Placement, Resources
from components.trainer.jobset.pace import Pace
from marco_model.engine import Engine
from marco_model.engines.cluster import VARIABLE
from marco_model.errors import InputError

API_VERSION = "jobset.x-k8s.io/v1alpha2"
PORT = 2222
TRAINING, RUN, ATTEMPT, MANAGED_BY = "marco/training", "marco/run", "marco/attempt", "app.kubernetes.io/managed-by"
MANAGER = "marco-pipeline"
WORKER_RETRIES = 3
"""How often an asynchronous worker that fails comes back, while the others go on without it."""

_NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
"""A label of pods. Kubeflow has Istio put a proxy into the pods of a profile's namespace; through it replicas would not
reach each other by name and port, nor would a Job of theirs end."""


@dataclasses.dataclass(frozen=True)
class Step:
    """The step's own pod, as it is found in its environment; `pod` and `uid` are empty outside a cluster.

    `attempt` tells this attempt of the step from every other.
    """

    namespace: str
    attempt: str
    run: str = ""
    pod: str = ""
    uid: str = ""


def name(key: str) -> str:
    """Returns the JobSet's name for the training `key`: one training, one JobSet."""
    return f"marco-{key}"


def jobs(engine: Engine, placement: Placement) -> dict[str, int]:
    """Returns how many replicas each replicated job has, the chief's first.

    Raises `InputError` where `engine.kind` and `cluster.replicas` don't go together.
    """
    replicas = placement.replicas
    told = (
        f"engine.kind is {engine.kind} and cluster.replicas has workers {replicas.workers}, parameter_servers "
        + str(replicas.parameter_servers)
    )
    if engine.kind not in ("multi_worker", "parameter_server"):
        raise InputError(f"{told}; set engine.kind to multi_worker or parameter_server, or leave cluster.replicas out")
    if replicas.workers < 2:
        raise InputError(f"{told}; give at least 2 workers, the chief among them, or leave cluster.replicas out")
    if (engine.kind == "parameter_server") != bool(replicas.parameter_servers):
        raise InputError(f"{told}; parameter_server needs at least 1 of them, multi_worker takes none")
    counts = {"chief": 1, "worker": replicas.workers - 1, "ps": replicas.parameter_servers}
    return {job: count for job, count in counts.items() if count}


def hosts(jobset: str, counts: dict[str, int]) -> dict[str, list[str]]:
    """Returns host:port of each replica by job; the subdomain is the JobSet's name."""
    return {
        job: [f"{jobset}-{job}-{index}-0.{jobset}:{PORT}" for index in range(count)] for job, count in counts.items()
    }


def jobset(
    key: str, engine: Engine, placement: Placement, step: Step, job_file: str, heartbeat: str, pace: Pace
) -> dict[str, Any]:
    """Returns the JobSet that runs `job_file` with `marco train`; raises `InputError` as `jobs` does."""
    counts, called = jobs(engine, placement), name(key)
    labels = {MANAGED_BY: MANAGER, TRAINING: key, ATTEMPT: step.attempt} | ({RUN: label(step.run)} if step.run else {})
    metadata: dict[str, Any] = {"name": called, "namespace": step.namespace, "labels": labels}
    if step.uid:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": step.pod, "uid": step.uid}]
    command = ["marco", "train", "--heartbeat", heartbeat, "--silence", str(pace.silence), job_file]
    cluster = hosts(called, counts)
    return {
        "apiVersion": API_VERSION,
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": called, "publishNotReadyAddresses": True},
            "successPolicy": {"operator": "All", "targetReplicatedJobs": ["chief"]},
            "failurePolicy": {"maxRestarts": placement.replicas.restarts},
            "ttlSecondsAfterFinished": pace.kept,
            "replicatedJobs": [
                _replicated_job(job, engine, placement, labels, cluster, command, pace.grace) for job in cluster
            ],
        },
    }


def label(text: str) -> str:
    """Returns `text` as a label may have it: up to 63 letters, digits, `-`, `_` and `.`, beginning and ending plain."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63].strip("-_.")


def _replicated_job(
    job: str,
    engine: Engine,
    placement: Placement,
    labels: dict[str, str],
    cluster: dict[str, list[str]],
    command: list[str],
    grace: int,
) -> dict[str, Any]:
    # Each replica is a Job of one pod. All of a replicated job share one template, so the index in TF_CONFIG is filled
    # in by Kubernetes, from the label that JobSet writes on the pod.
    resources = placement.replicas.parameter_server if job == "ps" else placement.replicas.worker
    told = json.dumps({"cluster": cluster, "task": {"type": job, "index": "$(MARCO_INDEX)"}})
    returning = engine.kind == "parameter_server" and job == "worker"
    return {
        "name": job,
        "replicas": len(cluster[job]),
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "parallelism": 1,
                "completions": 1,
                "backoffLimit": WORKER_RETRIES if returning else 0,
                "template": {
                    "metadata": {"labels": labels | _NO_SIDECAR},
                    "spec": _pod(placement, resources, told, command, grace),
                },
            },
        },
    }


def _pod(placement: Placement, resources: Resources, tf_config: str, command: list[str], grace: int) -> dict[str, Any]:
    index = {"fieldRef": {"fieldPath": "metadata.labels['jobset.sigs.k8s.io/job-index']"}}
    plain = {"HOME": "/tmp", **placement.environment}
    from_secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in placement.secrets
        for variable, key in secret.variables.items()
    ]
    given: dict[str, Any] = {"cpu": f"{resources.cpu:g}", "memory": resources.memory}
    if resources.accelerators:
        given[resources.accelerator] = str(resources.accelerators)
    volumes, mounts = _volumes(placement, resources)
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": placement.replicas.service_account,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "training",
                "image": placement.image,
                "command": command,
                "env": [
                    {"name": "MARCO_INDEX", "valueFrom": index},
                    {"name": VARIABLE, "value": tf_config},
                    *({"name": variable, "value": value} for variable, value in plain.items()),
                    *from_secrets,
                ],
                "ports": [{"containerPort": PORT, "name": "tensorflow"}],
                "resources": {"requests": given, "limits": given},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if placement.replicas.priority_class:
        pod["priorityClassName"] = placement.replicas.priority_class
    if resources.node_selector:
        pod["nodeSelector"] = dict(resources.node_selector)
    if resources.tolerations:
        pod["tolerations"] = [
            {field: value for field, value in dataclasses.asdict(one).items() if value} for one in resources.tolerations
        ]
    return pod


def _volumes(placement: Placement, resources: Resources) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    if resources.shared_memory:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": resources.shared_memory}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    for number, volume in enumerate(placement.volumes):
        claim = {"claimName": volume.claim, "readOnly": volume.read_only}
        volumes.append({"name": f"volume-{number}", "persistentVolumeClaim": claim})
        mounts.append({"name": f"volume-{number}", "mountPath": volume.path, "readOnly": volume.read_only})
    for number, secret in enumerate(placement.secrets):
        if secret.path:
            volumes.append({"name": f"secret-{number}", "secret": {"secretName": secret.name}})
            mounts.append({"name": f"secret-{number}", "mountPath": secret.path, "readOnly": True})
    return volumes, mounts
