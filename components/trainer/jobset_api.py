"""A JobSet as the Kubernetes API shows it: requests with patience, and following one until it ends."""

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes import client, config

from components.machines import Replicas
from marco_model import errors, training

API_VERSION = "jobset.x-k8s.io/v1alpha2"
EVICTED = "Evicted"
"""The reason of a pod that the kubelet evicts (Kubernetes, eviction_manager.go), and of no other."""

LOST_ANOTHER = "another worker is gone"
"""In the last lines of a synchronous worker that ended because another one had ended before."""

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and without a byte."""

RETRIES = 6
"""After 0, 1, 2, 4, 8 and 16 s, or as the API's Retry-After says."""

TAIL_LINES = 20
"""Of the log of a replica that failed."""

_JOBSET, _JOB, _INDEX = (f"jobset.sigs.k8s.io/{name}" for name in ("jobset-name", "replicatedjob-name", "job-index"))


@dataclasses.dataclass(frozen=True)
class Pace:
    """All in seconds."""

    # Between two requests for the JobSet's state.
    look: float = 3.0
    # Until the user hears of a pod that has not started.
    waiting: float = 60.0
    # For which an API may give no answer before following it ends with an error.
    unreachable: float = 600.0
    # Between two changes of the heartbeat, and without one, after which replicas end. That long the GPUs of a step that
    # was killed stay taken; yet a network file system may show an old state for a while (NFS: a minute).
    beat: float = 15.0
    silence: int = 120
    # For a replica that gets SIGTERM, to finish its step and save.
    grace: int = 120
    # For a deleted JobSet to be gone; if the step itself gets a signal, its own pod has little longer.
    gone: float = 180.0
    gone_at_signal: float = 15.0
    # Until Kubernetes deletes a JobSet that has ended and that nobody deleted.
    kept: int = 600


PACE = Pace()


class Unreachable(errors.ClusterError):
    """The API did not answer, or answered that it can't, for all of the retries."""


class Conflict(errors.ClusterError):
    """An object of that name exists already."""


def connect(retries: int = RETRIES) -> client.ApiClient:
    """Returns a client of the Kubernetes API, with the pod's own service account or kubectl's configuration.

    Raises `ClusterError` if there is neither.
    """
    configuration = client.Configuration()
    message = "there is no way to the Kubernetes API ({}); run on a cluster, or have kubectl configured"
    with errors.translated(errors.ClusterError, message, config.ConfigException, OSError):
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)
    # All methods: the caller checks what may have been done when the connection was lost (409, 404).
    configuration.retries = urllib3.Retry(
        total=retries,
        backoff_factor=0.5,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
    )
    return client.ApiClient(configuration)


class Api:
    """JobSets and pods of one namespace.

    Its methods raise `ClusterError` if the API refuses, `Unreachable` if it does not answer.
    """

    def __init__(self, namespace: str, retries: int = RETRIES) -> None:
        """Connects as `connect` does."""
        self.namespace = namespace
        api = connect(retries)
        self._core, self._custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self._jobsets = (*API_VERSION.split("/"), namespace, "jobsets")

    def create(self, body: dict[str, Any]) -> None:
        """Creates a JobSet; raises `Conflict` if there is one of its name."""
        create = self._custom.create_namespaced_custom_object
        self._request(f"create the JobSet {body['metadata']['name']}", create, *self._jobsets, body)

    def get(self, name: str) -> dict[str, Any] | None:
        """Returns a JobSet, or None if no JobSet has that name."""
        get = self._custom.get_namespaced_custom_object
        return self._request(f"read the JobSet {name}", get, *self._jobsets, name, absent=(404,))

    def delete(self, name: str) -> None:
        """Has a JobSet deleted, after all that it made; it may be gone already."""
        delete, options = self._custom.delete_namespaced_custom_object, {"propagation_policy": "Foreground"}
        self._request(f"delete the JobSet {name}", delete, *self._jobsets, name, absent=(404,), **options)

    def pods(self, jobset: str) -> list[client.V1Pod]:
        """Returns the pods of a JobSet, the oldest first."""
        selector = f"{_JOBSET}={jobset}"
        pods = self._request("list pods", self._core.list_namespaced_pod, self.namespace, label_selector=selector)
        return sorted(pods.items, key=lambda pod: pod.metadata.creation_timestamp)

    def pod(self, name: str) -> client.V1Pod | None:
        """Returns a pod, or None if no pod has that name."""
        return self._request(
            f"read the pod {name}", self._core.read_namespaced_pod, name, self.namespace, absent=(404,)
        )

    def log(self, pod: str, **options: int) -> str:
        """Returns lines of a pod's log, with time stamps; empty if there is none yet, or the pod is gone.

        `options`: `since_seconds`, `tail_lines`.
        """

        def read(**request: Any) -> bytes:
            # As bytes, which need not be UTF-8 if a line was cut.
            answer = self._core.read_namespaced_pod_log(
                pod, self.namespace, timestamps=True, _preload_content=False, **request
            )
            return bytes(answer.data)

        # The API answers 400 if the container has not started.
        content = self._request(f"read the log of {pod}", read, absent=(400, 404), **options)
        return content.decode(errors="replace") if content else ""

    def _request(
        self, what: str, call: Callable[..., Any], *arguments: Any, absent: tuple[int, ...] = (), **options: Any
    ) -> Any:
        """Returns the answer, or None if the API answers with one of the statuses `absent`.

        Raises the client's exceptions as `ClusterError`, or the subclass of it that fits.
        """
        request = f"{what} in namespace {self.namespace}"
        try:
            return call(*arguments, _request_timeout=TIMEOUT, **options)
        except client.ApiException as error:
            if error.status in absent:
                return None
            detail = f": {errors.one_line(str(error.body or error.reason), 300)}"
            if error.status == 404:
                detail = "; install JobSet and make the namespace, see docs/kubeflow.md"
            elif error.status in (401, 403):
                may = "run the steps as a service account that may, such as marco-pipeline of k8s/ (docs/kubeflow.md)"
                detail = f"; {may}{detail}"
            transient = error.status == 429 or error.status >= 500
            kind = Conflict if error.status == 409 else Unreachable if transient else errors.ClusterError
            raise kind(f"the Kubernetes API answers {error.status} to: {request}{detail}") from error
        except urllib3.exceptions.HTTPError as error:
            problem = f"the Kubernetes API does not answer to: {request}"
            raise Unreachable(f"{problem}: {errors.one_line(error, 300)}") from error


class Follower:
    """Follows a JobSet to its end and reports to `show`, one line at a time.

    That is what waits, the chief's log as it comes, and which replica failed first and how.
    """

    def __init__(self, api: Api, jobset: str, replicas: Replicas, show: Callable[[str], None], pace: Pace) -> None:
        self._api, self._jobset, self._replicas, self._show, self._pace = api, jobset, replicas, show, pace
        self._log: Log | None = None
        self._failures: dict[str, Failure] = {}
        self._waits: dict[str, tuple[str, float]] = {}
        self._restarts = self._counted = 0
        self._evicted: set[str] = set()

    def until_done(self, notice: training.Notice) -> bool:
        """Returns True once the JobSet has completed, False as soon as there is a signal.

        Raises `ClusterError` if it fails, is deleted by someone else, or can't be reached any more.
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
            raise errors.ClusterError(f"the JobSet {self._jobset} was deleted by someone else; run again to go on")
        pods = self._api.pods(self._jobset)
        self._show_waiting(pods)
        for pod in pods:
            self._keep_failure(pod)
        self._show_log(pods)
        status = jobset.get("status") or {}
        met = {entry["type"]: entry for entry in status.get("conditions", []) if entry["status"] == "True"}
        if "Completed" in met:
            return True
        # JobSet does not count a restart after an eviction, and a disk that is full will be full again.
        if len(self._evicted) > self._replicas.restarts:
            raise errors.ClusterError(f"training failed: {self._cause()}")
        if "Failed" in met:
            reason = " ".join(str(met["Failed"].get(field, "")) for field in ("reason", "message"))
            raise errors.ClusterError(
                f"training failed: {self._cause() or f'{reason}; no replica left an exit status'}"
            )
        restarts = status.get("restarts", 0)
        if restarts > self._restarts:
            counted = status.get("restartsCountTowardsMax", restarts)
            number = f" {counted} of {self._replicas.restarts}" if counted > self._counted else ", not counted,"
            self._restarts, self._counted = restarts, counted
            cause = self._cause()
            self._failures.clear()
            after = f" after {cause}" if cause else ""
            self._show(f"Restart{number} from the last checkpoint{after}")
        return False

    def _show_waiting(self, pods: list[client.V1Pod]) -> None:
        now = time.monotonic()
        for pod in pods:
            name, reason = pod.metadata.name, waiting_reason(pod)
            known, since = self._waits.setdefault(name, ("", now))
            if reason and reason != known and now - since >= self._pace.waiting:
                self._waits[name] = (reason, since)
                self._show(f"{replica_name(pod)} has been waiting for {now - since:.0f} s: {reason}")

    def _keep_failure(self, pod: client.V1Pod) -> None:
        """Keeps how a pod failed, at once, since JobSet deletes pods when it restarts."""
        name = pod.metadata.name
        ending = None if name in self._failures else failed_ending(pod)
        if ending:
            stamped = self._api.log(name, tail_lines=TAIL_LINES).splitlines()
            lines = tuple(line.partition(" ")[2] for line in stamped)
            self._failures[name] = Failure(replica_name(pod), *ending, lines)
            if ending[1].startswith(EVICTED):
                self._evicted.add(name)
            self._show(f"{replica_name(pod)} ended: {ending[1]}")

    def _show_log(self, pods: list[client.V1Pod]) -> None:
        chiefs = [pod.metadata.name for pod in pods if replica_name(pod) == "chief 0"]
        if chiefs:
            if self._log is None or self._log.pod != chiefs[-1]:
                self._log = Log(self._api, chiefs[-1])
            for line in self._log.new_lines():
                self._show(line)

    def _cause(self) -> str:
        cause = failure_cause(list(self._failures.values()))
        return cause.describe(self._replicas) if cause else ""


@dataclasses.dataclass(frozen=True)
class Failure:
    """How a replica ended: `status` is its exit status, None if the pod was deleted before it had one.

    `at`: when, as Kubernetes writes it. `lines`: its last ones.
    """

    replica: str
    status: int | None
    reason: str
    at: str
    lines: tuple[str, ...]

    def describe(self, replicas: Replicas) -> str:
        """Returns what happened and what to do, with the replica's last lines below."""
        ending = "without an exit status" if self.status is None else f"with exit status {self.status}"
        text = f"{self.replica} ended {ending} ({self.reason})"
        if self.reason == "OOMKilled":
            field = "parameter_server" if self.replica.startswith("ps ") else "worker"
            memory = getattr(replicas, field).memory
            text += f"; raise cluster.replicas.{field}.memory, {memory} now, or lower recipe.batch_size"
        if self.reason.startswith(EVICTED):
            text += "; give its node more of that, see disk in docs/kubeflow.md"
        return text + "".join(f"\n  {line}" for line in self.lines)


def failure_cause(failures: list[Failure]) -> Failure | None:
    """Returns the failure that caused the others: the first of those that did not end for lack of another replica.

    A replica that ended by SIGTERM (143) was ended by JobSet, as it does with the others.
    """

    def rank(failure: Failure) -> tuple[bool, bool, str]:
        return any(LOST_ANOTHER in line for line in failure.lines), failure.status == 143, failure.at

    return min(failures, key=rank, default=None)


def replica_name(pod: client.V1Pod) -> str:
    """Returns the replica's job and index, as `worker 0`."""
    labels = pod.metadata.labels or {}
    return f"{labels.get(_JOB, pod.metadata.name)} {labels.get(_INDEX, '0')}"


def waiting_reason(pod: client.V1Pod) -> str:
    """Returns why a pod has not started, empty if it has."""
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


def failed_ending(pod: client.V1Pod) -> tuple[int | None, str, str] | None:
    """Returns exit status, reason and time of a pod that failed, None of one that did not.

    The reason of a pod that the kubelet evicts, for want of disk or memory, begins with `EVICTED`.
    """
    evicted = f"{EVICTED}: {errors.one_line(pod.status.message or '')}" if pod.status.reason == EVICTED else ""
    for container in pod.status.container_statuses or []:
        state = container.state and container.state.terminated
        if state and state.exit_code:
            return state.exit_code, evicted or state.reason or "Error", str(state.finished_at or "")
    if pod.status.phase == "Failed":
        return None, evicted or pod.status.reason or "Failed", ""
    return None


class Log:
    """A pod's log, each line once, however often it is read."""

    def __init__(self, api: Api, pod: str) -> None:
        self._api, self.pod = api, pod
        # The last time stamp seen, how many lines had it, and when that was by our clock.
        self._stamp, self._count, self._asked = "", 0, 0.0

    def new_lines(self) -> list[str]:
        """Returns the lines that came since the last call."""
        since = {"since_seconds": int(time.monotonic() - self._asked) + 11} if self._stamp else {}
        self._asked = time.monotonic()
        stamped = [line.partition(" ") for line in self._api.log(self.pod, **since).splitlines()]
        lines = [(_comparable(stamp), line) for stamp, _, line in stamped]
        last = [line for stamp, line in lines if stamp == self._stamp]
        later = [(stamp, line) for stamp, line in lines if stamp > self._stamp]
        new = last[self._count :] + [line for _, line in later]
        self._count = max(self._count, len(last))
        if later:
            self._stamp = max(stamp for stamp, _ in later)
            self._count = sum(stamp == self._stamp for stamp, _ in later)
        return new


def _comparable(stamp: str) -> str:
    """Returns an RFC 3339 time in UTC with nine digits after the point, some of which container runtimes leave out."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction.ljust(9, '0')}"
