"""What a training asks of the Kubernetes API, with patience; its answers as plain errors."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from components.machines import Placement, Resources, job_counts
from marco_model.errors import ClusterError
from marco_model.recipe import CLUSTER_VARIABLE, Engine


@dataclasses.dataclass(frozen=True)
class Pace:
    """All in seconds."""

    # Between two looks at the JobSet.
    look: float = 3.0
    # Until the user is told of a pod that has not started.
    waiting: float = 60.0
    # That an API which does not answer is borne.
    unreachable: float = 600.0
    # Between two changes of the heartbeat, and without one, after which replicas end. That long the GPUs of a step that
    # was killed stay taken; yet a network file system may show an old state for a while (NFS: a minute).
    beat: float = 15.0
    silence: int = 120
    # For a replica that is told to end, to finish its step and save.
    grace: int = 120
    # For a deleted JobSet to be gone; where the step itself is told to end, its own pod has little longer.
    gone: float = 180.0
    gone_at_signal: float = 15.0
    # Until Kubernetes takes away a JobSet that has ended and that nobody deleted.
    kept: int = 600


PACE = Pace()


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


def hosts(jobset: str, counts: dict[str, int]) -> dict[str, list[str]]:
    """Returns host:port of each replica by job; the subdomain is the JobSet's name."""
    return {
        job: [f"{jobset}-{job}-{index}-0.{jobset}:{PORT}" for index in range(count)] for job, count in counts.items()
    }


def jobset(
    key: str, engine: Engine, placement: Placement, step: Step, job_file: str, heartbeat: str, pace: Pace
) -> dict[str, Any]:
    """Returns the JobSet that runs `job_file` with `marco train`; raises `InputError` as `job_counts` does."""
    called = name(key)
    counts = job_counts(engine, "cluster.replicas", placement.training_replicas())
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
            "failurePolicy": {"maxRestarts": placement.training_replicas().restarts},
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
    resources = placement.training_replicas().parameter_server if job == "ps" else placement.training_replicas().worker
    tf_config = json.dumps({"cluster": cluster, "task": {"type": job, "index": "$(MARCO_INDEX)"}})
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
                    "spec": _pod(placement, resources, tf_config, command, grace),
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
        "serviceAccountName": placement.training_replicas().service_account,
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
                    {"name": CLUSTER_VARIABLE, "value": tf_config},
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
    if placement.training_replicas().priority_class:
        pod["priorityClassName"] = placement.training_replicas().priority_class
    if resources.node_selector:
        pod["nodeSelector"] = dict(resources.node_selector)
    if resources.tolerations:
        pod["tolerations"] = [
            {field: value for field, value in toleration.model_dump().items() if value}
            for toleration in resources.tolerations
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
    """An object of that name exists already."""


class Missing(ClusterError):
    """The API has no such object."""


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
        """Returns a JobSet, None where no JobSet has that name."""
        try:
            with _answers(f"read the JobSet {name}", self.namespace):
                return self._custom.get_namespaced_custom_object(
                    _GROUP, _VERSION, self.namespace, _PLURAL, name, _request_timeout=TIMEOUT
                )
        except Missing:
            return None

    def delete(self, name: str) -> None:
        """Has a JobSet deleted, after all that it made; it may be gone already."""
        with contextlib.suppress(Missing), _answers(f"delete the JobSet {name}", self.namespace):
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
        """Returns a pod, None where no pod has that name."""
        try:
            with _answers(f"read the pod {name}", self.namespace):
                return self._core.read_namespaced_pod(name, self.namespace, _request_timeout=TIMEOUT)
        except Missing:
            return None

    def log(self, pod: str, **options: Any) -> str:
        """Returns lines of a pod's log, with time stamps; empty where there is none yet, or no pod any more.

        `options`: `since_seconds`, `tail_lines`.
        """
        from kubernetes.client import ApiException

        try:
            with _answers(f"read the log of {pod}", self.namespace):
                try:
                    # As bytes, which need not be UTF-8 where a line was cut.
                    answer = self._core.read_namespaced_pod_log(
                        pod,
                        self.namespace,
                        timestamps=True,
                        _preload_content=False,
                        _request_timeout=TIMEOUT,
                        **options,
                    )
                except ApiException as error:
                    if error.status == 400:  # Its container has not started.
                        return ""
                    raise
                return answer.data.decode(errors="replace")
        except Missing:
            return ""


@contextlib.contextmanager
def _answers(what: str, namespace: str) -> Iterator[None]:
    """Raises the client's exceptions as `ClusterError`, or the subclass of it that fits."""
    import urllib3
    from kubernetes.client import ApiException

    try:
        yield
    except ApiException as error:
        problem = f"the Kubernetes API answers {error.status} to: {what} in namespace {namespace}"
        detail = " ".join(str(error.body or error.reason).split())[:300]
        if error.status == 404:
            raise Missing(f"{problem}; install JobSet and make the namespace, see docs/kubeflow.md") from error
        if error.status in (401, 403):
            raise ClusterError(
                f"{problem}; run the steps as a service account that may, such as marco-pipeline of k8s/ "
                f"(docs/kubeflow.md): {detail}"
            ) from error
        if error.status == 409:
            raise Conflict(f"{problem}: {detail}") from error
        kind = Unreachable if error.status == 429 or error.status >= 500 else ClusterError
        raise kind(f"{problem}: {detail}") from error
    except urllib3.exceptions.HTTPError as error:
        detail = " ".join(str(error).split())[:300]
        raise Unreachable(
            f"the Kubernetes API does not answer to: {what} in namespace {namespace}: {detail}"
        ) from error
