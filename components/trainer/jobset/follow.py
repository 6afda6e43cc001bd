"""Follows a JobSet until it has ended: what waits, the chief's log as it comes, who failed and how."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from components.cluster.options import Replicas
from components.trainer.jobset import replicas as pods
from components.trainer.jobset.api import Api, Unreachable
from components.trainer.jobset.pace import Pace
from marco_model.errors import ClusterError
from marco_model.preemption import Notice

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
        self._failures: dict[str, pods.Failure] = {}
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
            name, why = pod.metadata.name, pods.waiting(pod)
            known, since = self._waits.get(name, ("", now))
            self._waits.setdefault(name, (known, since))
            if why and why != known and now - since >= self._pace.waiting:
                self._waits[name] = (why, since)
                self._show(f"{pods.name(pod)} waits since {now - since:.0f} s: {why}")

    def _keep_failure(self, pod: Any) -> None:
        """Now, since JobSet takes pods away when it restarts."""
        name = pod.metadata.name
        how = None if name in self._failures else pods.ended(pod)
        if how:
            stamped = self._api.log(name, tail_lines=TAIL_LINES).splitlines()
            lines = tuple(line.partition(" ")[2] for line in stamped)
            self._failures[name] = pods.Failure(pods.name(pod), *how, lines)
            self._show(f"{pods.name(pod)} ended: {how[1]}")

    def _tell_log(self, there: list[Any]) -> None:
        chiefs = [pod for pod in there if pods.name(pod) == "chief 0"]
        if chiefs:
            name = chiefs[-1].metadata.name
            if self._log is None or self._log.pod != name:
                self._log = Log(self._api, name)
            for line in self._log.new_lines():
                self._show(line)

    def _tell_restart(self, restarts: int) -> None:
        if restarts > self._restarts:
            self._restarts = restarts
            first = pods.cause(list(self._failures.values()))
            self._failures.clear()
            why = f" after {first.describe(self._replicas)}" if first else ""
            self._show(f"Restart {restarts} of {self._replicas.restarts} from the last checkpoint{why}")

    def _error(self, condition: dict[str, Any]) -> ClusterError:
        first = pods.cause(list(self._failures.values()))
        if first:
            return ClusterError(f"training failed: {first.describe(self._replicas)}")
        told = " ".join(str(condition.get(field, "")) for field in ("reason", "message"))
        return ClusterError(f"training failed: {told}; no replica left an exit status")
