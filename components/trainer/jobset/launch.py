"""The Trainer step where training is on several nodes: has the job run as a JobSet and brings the model back."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from components.cluster.options import Placement
from components.trainer.job import FILE, Job
from components.trainer.jobset import manifest, shared
from components.trainer.jobset.api import Api, Conflict
from components.trainer.jobset.follow import Follower
from components.trainer.jobset.heartbeat import beating
from components.trainer.jobset.manifest import Step
from components.trainer.jobset.pace import PACE, Pace
from marco_model import preemption
from marco_model.errors import ClusterError, Interrupted

_NAMESPACE_FILE = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def placement(told: dict[str, Any] | None) -> Placement | None:
    """Returns what `custom_config` has as `cluster`, None where training is the step's own."""
    if not told or not told.get("replicas"):
        return None
    import pydantic

    return pydantic.TypeAdapter(Placement).validate_python(told)


def step() -> Step:
    """Returns who this step is, from the environment that the compiled package gives it."""
    namespace = os.environ.get("MARCO_NAMESPACE", "")
    if not namespace and _NAMESPACE_FILE.exists():
        namespace = _NAMESPACE_FILE.read_text().strip()
    return Step(
        namespace=namespace or "default",
        attempt=uuid.uuid4().hex[:12],
        run=os.environ.get("MARCO_RUN", ""),
        pod=os.environ.get("MARCO_POD_NAME") or os.environ.get("KFP_POD_NAME", ""),
        uid=os.environ.get("MARCO_POD_UID") or os.environ.get("KFP_POD_UID", ""),
    )


def show(line: str) -> None:
    """Writes a line into the step's own log."""
    print(line, file=sys.stderr, flush=True)


def run(
    job: Job,
    placement: Placement,
    *,
    pace: Pace = PACE,
    show: Callable[[str], None] = show,
) -> None:
    """Trains `job` on the replicas of `placement` and leaves its model where it wants it.

    The JobSet is deleted however this ends.

    Raises:
        InputError: `placement` does not fit the engine, or its shared folder can't be used.
        ClusterError: a replica failed, or the Kubernetes API refuses.
        Interrupted: SIGTERM or SIGINT came; the replicas were told, and save.
    """
    here = step()
    manifest.jobs(job.engine, placement)
    own = shared.folder(placement.shared, job.key)
    inside = shared.move_in(job, placement.shared, own)
    inside.write()
    heartbeat = str(own / "heartbeat")
    body = manifest.jobset(job.key, job.engine, placement, here, f"{inside.checkpoints}/{FILE}", heartbeat, pace)
    name = body["metadata"]["name"]
    api = Api(here.namespace)
    with preemption.noticed() as notice, beating(heartbeat, pace.beat):
        try:
            created = _create(api, body, here, pace.gone, notice)
            if created:
                # What a chief left that was killed while it exported.
                shutil.rmtree(own / "model", ignore_errors=True)
                counts = ", ".join(f"{count} {job}" for job, count in manifest.jobs(job.engine, placement).items())
                show(f"JobSet {name} in {here.namespace}: {counts}")
            done = created and Follower(api, name, placement.replicas, show, pace).until_done(notice)
        finally:
            _delete(api, name, here, pace.gone_at_signal if notice.signal else pace.gone, show)
        if not done:
            raise Interrupted(
                "training stopped and its JobSet is deleted; run again to go on from the last checkpoint", notice.signal
            )
    shared.move_out(inside, job)
    shutil.rmtree(own, ignore_errors=True)


def _create(api: Api, body: dict[str, Any], here: Step, seconds: float, notice: preemption.Notice) -> bool:
    """Creates the JobSet, once what an earlier attempt left is gone; returns False where a signal came first.

    Raises `ClusterError` where one of that name is someone else's, or of a step that still runs.
    """
    name, until = body["metadata"]["name"], time.monotonic() + seconds
    while not notice.signal:
        try:
            api.create(body)
            return True
        except Conflict:
            there = api.get(name)
            if there and _label(there, manifest.ATTEMPT) == here.attempt:
                return True  # The answer to an earlier try was lost.
            if there:
                _delete_leftover(api, there, body, here, time.monotonic() > until)
        time.sleep(1.0)
    return False


def _delete_leftover(api: Api, there: dict[str, Any], body: dict[str, Any], here: Step, late: bool) -> None:
    name = there["metadata"]["name"]
    for label in (manifest.MANAGED_BY, manifest.TRAINING):
        if _label(there, label) != _label(body, label):
            raise ClusterError(
                f"a JobSet {name} is there that this pipeline did not make; kubectl delete jobset {name}, or rename it"
            )
    if there["metadata"].get("deletionTimestamp"):
        if late:
            raise ClusterError(
                f"the JobSet {name} of an earlier attempt is not gone; see kubectl describe jobset {name}"
            )
        return
    owners = [owner["name"] for owner in there["metadata"].get("ownerReferences", []) if owner["uid"] != here.uid]
    running = [owner for owner in owners if _runs(api.pod(owner))]
    if not running:
        api.delete(name)
    elif late:
        raise ClusterError(f"the step {running[0]} trains the same as JobSet {name}; wait for it, or delete its run")


def _label(body: dict[str, Any], label: str) -> str:
    return (body["metadata"].get("labels") or {}).get(label, "")


def _runs(pod: Any | None) -> bool:
    return pod is not None and pod.status.phase in ("Pending", "Running")


def _delete(api: Api, name: str, here: Step, seconds: float, show: Callable[[str], None]) -> None:
    """Deletes the JobSet of this attempt and waits until it is gone; no other, and where it was never made, nothing.

    An API that refuses does not hide how training ended.
    """
    until, asked = time.monotonic() + seconds, False
    try:
        while (there := api.get(name)) and _label(there, manifest.ATTEMPT) == here.attempt:
            if not asked:
                api.delete(name)
                asked = True
            elif time.monotonic() > until:
                show(f"JobSet {name} is being deleted and not gone after {seconds:.0f} s")
                return
            time.sleep(min(1.0, seconds / 10))
    except ClusterError as error:
        show(f"JobSet {name} could not be deleted ({error}); its replicas end when they miss the step's heartbeat")
