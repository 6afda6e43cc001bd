"""What the pods of a training tell: whether they wait and why, how they ended, and their last lines."""

from __future__ import annotations

import dataclasses
from typing import Any

from components.cluster.options import Replicas

LOST_ANOTHER = "another worker is gone"
"""In the last lines of a synchronous worker that ended because of one that did before it."""

_JOB, _INDEX = "jobset.sigs.k8s.io/replicatedjob-name", "jobset.sigs.k8s.io/job-index"


@dataclasses.dataclass(frozen=True)
class Failure:
    """How a replica ended: `status` is its exit status, None where the pod was taken away before it had one.

    `at`: when, as Kubernetes writes it. `lines`: its last ones.
    """

    replica: str
    status: int | None
    reason: str
    at: str
    lines: tuple[str, ...]

    def describe(self, replicas: Replicas) -> str:
        """Returns what happened and what to do, with the replica's last lines below."""
        told = "without an exit status" if self.status is None else f"with exit status {self.status}"
        text = f"{self.replica} ended {told} ({self.reason})"
        if self.reason == "OOMKilled":
            of, field = (
                (replicas.parameter_server, "parameter_server")
                if self.replica.startswith("ps ")
                else (replicas.worker, "worker")
            )
            text += f"; raise cluster.replicas.{field}.memory, {of.memory} now, or lower recipe.batch_size"
        return text + "".join(f"\n  {line}" for line in self.lines)


def name(pod: Any) -> str:
    """Returns the replica's job and index, as `worker 0`."""
    labels = pod.metadata.labels or {}
    return f"{labels.get(_JOB, pod.metadata.name)} {labels.get(_INDEX, '0')}"


def waiting(pod: Any) -> str:
    """Returns why a pod has not started, empty where it has."""
    status = pod.status
    for container in status.container_statuses or []:
        if container.state and container.state.waiting:
            state = container.state.waiting
            return f"{state.reason}: {state.message}" if state.message else str(state.reason)
    if status.phase != "Pending":
        return ""
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    return "Pending"


def ended(pod: Any) -> tuple[int | None, str, str] | None:
    """Returns exit status, reason and time of a pod that failed, None of one that did not."""
    for container in pod.status.container_statuses or []:
        state = container.state and container.state.terminated
        if state and state.exit_code:
            return state.exit_code, state.reason or "Error", str(state.finished_at or "")
    if pod.status.phase == "Failed":
        return None, pod.status.reason or "Failed", ""
    return None


def cause(failures: list[Failure]) -> Failure | None:
    """Returns the failure that the others followed from: the first, of those that did not end for want of another.

    A replica that was told to end (143) is what JobSet does to the others.
    """

    def rank(failure: Failure) -> tuple[bool, bool, str]:
        return any(LOST_ANOTHER in line for line in failure.lines), failure.status == 143, failure.at

    return min(failures, key=rank, default=None)
