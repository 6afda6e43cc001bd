"""Follows a JobSet until it has ended: what waits, the chief's log as it comes, who failed and how."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from components.machines import Replicas
from components.trainer.jobset import Api, Pace, Unreachable
from marco_model.errors import ClusterError
from marco_model.training import Notice

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


def replica_name(pod: Any) -> str:
    """Returns the replica's job and index, as `worker 0`."""
    labels = pod.metadata.labels or {}
    return f"{labels.get(_JOB, pod.metadata.name)} {labels.get(_INDEX, '0')}"


def waiting_reason(pod: Any) -> str:
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


def has_ended(pod: Any) -> tuple[int | None, str, str] | None:
    """Returns exit status, reason and time of a pod that failed, None of one that did not."""
    for container in pod.status.container_statuses or []:
        state = container.state and container.state.terminated
        if state and state.exit_code:
            return state.exit_code, state.reason or "Error", str(state.finished_at or "")
    if pod.status.phase == "Failed":
        return None, pod.status.reason or "Failed", ""
    return None


def failure_cause(failures: list[Failure]) -> Failure | None:
    """Returns the failure that the others followed from: the first, of those that did not end for want of another.

    A replica that was told to end (143) is what JobSet does to the others.
    """

    def rank(failure: Failure) -> tuple[bool, bool, str]:
        return any(LOST_ANOTHER in line for line in failure.lines), failure.status == 143, failure.at

    return min(failures, key=rank, default=None)


TAIL_LINES = 20


class Log:
    """A pod's log, line by line, each once, however often it is asked for."""

    def __init__(self, api: Api, pod: str) -> None:
        self._api, self.pod = api, pod
        # The last time stamp seen, how many lines had it, and when that was by our clock.
        self._stamp, self._count, self._asked = "", 0, 0.0

    def new_lines(self) -> list[str]:
        """Returns the lines that came since the last call."""
        since = {"since_seconds": math.ceil(time.monotonic() - self._asked) + 10} if self._stamp else {}
        asked = time.monotonic()
        stamped = [line.partition(" ")[::2] for line in self._api.log(self.pod, **since).splitlines()]
        lines, again = [], 0
        for stamp, line in stamped:
            comparable = _comparable(stamp)
            if comparable < self._stamp:
                continue
            if comparable == self._stamp:
                again += 1
                if again <= self._count:
                    continue
                self._count = again
            else:
                self._stamp, self._count, again = comparable, 1, 1
            lines.append(line)
        self._asked = asked
        return lines


def _comparable(stamp: str) -> str:
    """Returns an RFC 3339 time in UTC with nine digits after the point, some of which container runtimes leave out."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction.ljust(9, '0')}"


class Follower:
    """Looks at a JobSet again and again; what it learns it tells `show`, a line at a time."""

    def __init__(self, api: Api, jobset: str, replicas: Replicas, show: Callable[[str], None], pace: Pace) -> None:
        self._api, self._jobset, self._replicas, self._show, self._pace = api, jobset, replicas, show, pace
        self._log: Log | None = None
        self._failures: dict[str, Failure] = {}
        self._waits: dict[str, tuple[str, float]] = {}
        self._restarts = 0

    def until_done(self, notice: Notice) -> bool:
        """Returns True once the JobSet has completed, False as soon as there is a signal.

        Raises `ClusterError` where it fails, is deleted by someone else, or can't be reached any more.
        """
        answered = time.monotonic()
        while not notice.signal:
            try:
                if self._look():
                    return True
                answered = time.monotonic()
            except Unreachable as error:
                if time.monotonic() - answered > self._pace.unreachable:
                    raise
                self._show(f"{error}; asking again")
            time.sleep(self._pace.look)
        return False

    def _look(self) -> bool:
        # The JobSet first: what its pods say after it has ended is all they say.
        jobset = self._api.get(self._jobset)
        if jobset is None:
            raise ClusterError(f"the JobSet {self._jobset} was deleted by someone else; run again to go on")
        there = self._api.pods(self._jobset)
        self._tell_waiting(there)
        for pod in there:
            self._keep_failure(pod)
        self._tell_log(there)
        status = jobset.get("status") or {}
        met = {one["type"]: one for one in status.get("conditions", []) if one["status"] == "True"}
        if "Completed" in met:
            return True
        if "Failed" in met:
            raise self._error(met["Failed"])
        self._tell_restart(status.get("restarts", 0))
        return False

    def _tell_waiting(self, there: list[Any]) -> None:
        now = time.monotonic()
        for pod in there:
            name, why = pod.metadata.name, waiting_reason(pod)
            known, since = self._waits.get(name, ("", now))
            self._waits.setdefault(name, (known, since))
            if why and why != known and now - since >= self._pace.waiting:
                self._waits[name] = (why, since)
                self._show(f"{replica_name(pod)} waits since {now - since:.0f} s: {why}")

    def _keep_failure(self, pod: Any) -> None:
        """Now, since JobSet takes pods away when it restarts."""
        name = pod.metadata.name
        how = None if name in self._failures else has_ended(pod)
        if how:
            stamped = self._api.log(name, tail_lines=TAIL_LINES).splitlines()
            lines = tuple(line.partition(" ")[2] for line in stamped)
            self._failures[name] = Failure(replica_name(pod), *how, lines)
            self._show(f"{replica_name(pod)} ended: {how[1]}")

    def _tell_log(self, there: list[Any]) -> None:
        chiefs = [pod for pod in there if replica_name(pod) == "chief 0"]
        if chiefs:
            name = chiefs[-1].metadata.name
            if self._log is None or self._log.pod != name:
                self._log = Log(self._api, name)
            for line in self._log.new_lines():
                self._show(line)

    def _tell_restart(self, restarts: int) -> None:
        if restarts > self._restarts:
            self._restarts = restarts
            first = failure_cause(list(self._failures.values()))
            self._failures.clear()
            why = f" after {first.describe(self._replicas)}" if first else ""
            self._show(f"Restart {restarts} of {self._replicas.restarts} from the last checkpoint{why}")

    def _error(self, condition: dict[str, Any]) -> ClusterError:
        first = failure_cause(list(self._failures.values()))
        if first:
            return ClusterError(f"training failed: {first.describe(self._replicas)}")
        told = " ".join(str(condition.get(field, "")) for field in ("reason", "message"))
        return ClusterError(f"training failed: {told}; no replica left an exit status")
