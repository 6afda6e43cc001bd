"""The Trainer step where training is on several nodes: has the job run as a JobSet and brings the model back."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from components import machines
from components.machines import Placement
from components.trainer import jobset
from components.trainer.job import FILE, TrainingJob
from components.trainer.jobset import PACE, Api, Conflict, Pace, Step
from components.trainer.jobset_follow import Follower
from marco_data.progress import progress
from marco_model import training
from marco_model.errors import ClusterError, InputError, Interrupted

log = logging.getLogger(__name__)

GRACE = 60.0
"""Seconds to save in after the signal; a process that waits for a lost one would else wait for ever."""


@contextlib.contextmanager
def beating(file: str, every: float) -> Iterator[None]:
    """Changes `file` every so many seconds while the context lasts."""
    stop = threading.Event()

    def beat() -> None:
        while True:
            # A volume may fail for a moment; the next beat comes.
            with contextlib.suppress(OSError):
                _write(file)
            if stop.wait(every):
                return

    _write(file)
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _write(file: str) -> None:
    aside = pathlib.Path(f"{file}.partial")
    aside.write_text(uuid.uuid4().hex)
    aside.replace(file)


def end_with(file: str, silence: float, grace: float = GRACE) -> None:
    """Has this process end as at a preemption once `file` has not changed for `silence` seconds.

    It gets SIGTERM, on which training saves and ends with 143; after `grace` more seconds it ends with 143 regardless.
    """
    threading.Thread(target=_watch, args=(file, silence, grace), name="heartbeat", daemon=True).start()


def _watch(file: str, silence: float, grace: float) -> None:
    seen, last = _read(file), time.monotonic()
    while time.monotonic() - last < silence:
        time.sleep(min(1.0, silence / 4))
        now = _read(file)
        if now != seen and now:
            seen, last = now, time.monotonic()
    log.warning("%s has not changed for %.0f s: the step that started this is gone; ending", file, silence)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(128 + signal.SIGTERM)


def _read(file: str) -> str:
    try:
        return pathlib.Path(file).read_text()
    except OSError:
        return ""


def shared_folder(place: str, key: str) -> pathlib.Path:
    """Returns the folder of the training `key` below `place`, made if it was not there.

    Raises `InputError` where `place` is no absolute path, or can't be written.
    """
    if not place.startswith("/"):
        raise InputError(
            f"cluster.shared is {place!r} and cluster.replicas is set; give a path in one of cluster.volumes"
        )
    made = pathlib.Path(place) / "trainings" / key
    try:
        made.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=made):
            pass
    except OSError as error:
        raise InputError(
            f"cluster.shared {place} can't be written ({error.strerror}); mount a volume there that user {os.getuid()} "
            "may write"
        ) from error
    return made


def move_in(job: TrainingJob, place: str, own: pathlib.Path) -> TrainingJob:
    """Returns the job as replicas see it: all files below `place`, the model into `own`; copies what lies elsewhere."""
    train_files = _copied(job.train_files, place, own / "data" / "train")
    eval_files = _copied(job.eval_files, place, own / "data" / "eval")
    checkpoints = job.checkpoints
    if not ("://" in checkpoints or _within(checkpoints, place)):
        checkpoints = f"{place.rstrip('/')}/checkpoints/{job.key}"
    model = own / "model" / pathlib.PurePosixPath(job.model_directory).name
    files = {"train_files": train_files, "eval_files": eval_files}
    return job.model_copy(update={**files, "checkpoints": checkpoints, "model_directory": str(model)})


def _copied(files: list[str], place: str, target: pathlib.Path) -> list[str]:
    """Returns where the files are for all; what has its name in `target` is whole."""
    outside = [file for file in files if "://" not in file and not _within(file, place)]
    # Files of several folders may have one name.
    there = {file: target / f"{number:05d}-{pathlib.PurePath(file).name}" for number, file in enumerate(outside)}
    missing = {file: copy for file, copy in there.items() if not _same(file, copy)}
    if missing:
        target.mkdir(parents=True, exist_ok=True)
        size = sum(os.path.getsize(file) for file in missing)  # noqa: PTH202
        room = shutil.disk_usage(target).free
        if size > room:
            raise InputError(f"{target} has {room:,} bytes left, the examples have {size:,}; give cluster.shared more")
        with progress(f"Copying to {target}", len(missing), "files") as advance:
            for file, copy in missing.items():
                aside = copy.with_name(f"{copy.name}.partial")
                shutil.copyfile(file, aside)
                aside.replace(copy)
                advance()
    return [str(there.get(file, file)) for file in files]


def _same(file: str, copy: pathlib.Path) -> bool:
    return copy.is_file() and copy.stat().st_size == os.path.getsize(file)  # noqa: PTH202


def _within(path: str, place: str) -> bool:
    return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(place))


def move_out(inside: TrainingJob, job: TrainingJob) -> None:
    """Puts the model that the replicas left for `inside`, with what lies beside it, where `job` wants it."""
    source = pathlib.Path(inside.model_directory).parent
    target = job.model_directory.rstrip("/").rpartition("/")[0]
    for directory, _, files in os.walk(source):
        there = "/".join((target, *pathlib.Path(directory).relative_to(source).parts))
        tf.io.gfile.makedirs(there)
        for file in files:
            tf.io.gfile.copy(f"{directory}/{file}", f"{there}/{file}", overwrite=True)


_NAMESPACE_FILE = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


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
    job: TrainingJob,
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
    here, replicas = step(), placement.training_replicas()
    job_counts = machines.job_counts(job.engine, "cluster.replicas", replicas)
    own = shared_folder(placement.shared, job.key)
    inside = move_in(job, placement.shared, own)
    inside.write()
    heartbeat = str(own / "heartbeat")
    body = jobset.jobset(job.key, job.engine, placement, here, f"{inside.checkpoints}/{FILE}", heartbeat, pace)
    name = body["metadata"]["name"]
    api = Api(here.namespace)
    with training.defer_signals() as notice, beating(heartbeat, pace.beat):
        try:
            created = _create(api, body, here, pace.gone, notice)
            if created:
                # What a chief left that was killed while it exported.
                shutil.rmtree(own / "model", ignore_errors=True)
                counts = ", ".join(f"{count} {kind}" for kind, count in job_counts.items())
                show(f"JobSet {name} in {here.namespace}: {counts}")
            done = created and Follower(api, name, replicas, show, pace).until_done(notice)
        finally:
            _delete(api, name, here, pace.gone_at_signal if notice.signal else pace.gone, show)
        if not done:
            raise Interrupted(
                "training stopped and its JobSet is deleted; run again to go on from the last checkpoint", notice.signal
            )
    move_out(inside, job)
    shutil.rmtree(own, ignore_errors=True)


def _create(api: Api, body: dict[str, Any], here: Step, seconds: float, notice: training.Notice) -> bool:
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
            if there and _label(there, jobset.ATTEMPT) == here.attempt:
                return True  # The answer to an earlier try was lost.
            if there:
                _delete_leftover(api, there, body, here, time.monotonic() > until)
        time.sleep(1.0)
    return False


def _delete_leftover(api: Api, there: dict[str, Any], body: dict[str, Any], here: Step, late: bool) -> None:
    name = there["metadata"]["name"]
    for label in (jobset.MANAGED_BY, jobset.TRAINING):
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
        while (there := api.get(name)) and _label(there, jobset.ATTEMPT) == here.attempt:
            if not asked:
                api.delete(name)
                asked = True
            elif time.monotonic() > until:
                show(f"JobSet {name} is being deleted and not gone after {seconds:.0f} s")
                return
            time.sleep(min(1.0, seconds / 10))
    except ClusterError as error:
        show(f"JobSet {name} could not be deleted ({error}); its replicas end when they miss the step's heartbeat")
