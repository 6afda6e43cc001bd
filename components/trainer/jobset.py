"""The Trainer step when training is on several nodes: runs the job as a JobSet and brings the model back.

`run` is the step's part: it shares the files of the job with the replicas, creates the JobSet that `manifest`
describes, follows it and deletes it. Meanwhile it changes the file `heartbeat`. Replicas that no longer see it change
save and end (`end_with`), so that a step that was killed leaves nothing behind.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from components.machines import Placement, Resources, job_counts
from components.trainer import job as jobs, jobset_api
from marco_data.progress import progress
from marco_model import errors, example_files, recipe, store, training

log = logging.getLogger(__name__)

PORT = 2222
TRAINING, RUN, ATTEMPT, MANAGED_BY = "marco/training", "marco/run", "marco/attempt", "app.kubernetes.io/managed-by"
MANAGER = "marco-pipeline"
WORKER_RETRIES = 3
"""How often an asynchronous worker that fails comes back, while the others continue without it."""

_DISRUPTED = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
"""Matches a pod that Kubernetes ends for its own reasons: preemption, a drained or lost node, an eviction."""

_RESTARTS_UNCOUNTED = {
    "name": "disrupted",
    "action": "RestartJobSetAndIgnoreMaxRestarts",
    "onJobFailureReasons": ["PodFailurePolicy"],
}

GRACE = 60.0
"""Seconds to save in after the signal; a process that waits for a lost one would otherwise wait forever."""

_NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
"""A label of pods. Kubeflow has Istio put a proxy into the pods of a profile's namespace; through it replicas would not
reach each other by name and port, nor would a Job of theirs end."""

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def run(
    job: jobs.TrainingJob,
    placement: Placement,
    *,
    pace: jobset_api.Pace = jobset_api.PACE,
    show: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Trains `job` on the replicas of `placement` and leaves its model where the job wants it.

    The JobSet is deleted however this ends.

    Raises:
        InputError: `placement` does not fit the engine, or its shared folder can't be used.
        ClusterError: a replica failed, or the Kubernetes API refuses.
        Interrupted: SIGTERM or SIGINT came; the replicas get it too, and save.
    """
    step, replicas = find_step(), placement.training_replicas()
    counts = job_counts(job.engine, "cluster.replicas", replicas)
    own = shared_folder(placement.shared, job.key)
    inside = move_in(job, placement.shared, own)
    inside.write()
    heartbeat = str(own / "heartbeat")
    body = manifest(job.key, job.engine, placement, step, f"{inside.checkpoints}/{jobs.FILE}", heartbeat, pace)
    name = body["metadata"]["name"]
    api = jobset_api.Api(step.namespace)
    with training.defer_signals() as notice, beating(heartbeat, pace.beat):
        try:
            created = _create(api, body, step, pace.gone, notice)
            if created:
                # What a chief left that was killed while it exported.
                shutil.rmtree(own / "model", ignore_errors=True)
                show(f"JobSet {name} in {step.namespace}: {', '.join(f'{n} {kind}' for kind, n in counts.items())}")
            done = created and jobset_api.Follower(api, name, replicas, show, pace).until_done(notice)
        finally:
            _delete(api, name, step, pace.gone_at_signal if notice.signal else pace.gone, show)
        if not done:
            raise errors.Interrupted(
                "training stopped and its JobSet is deleted; run again to go on from the last checkpoint", notice.signal
            )
    move_out(inside, job)
    shutil.rmtree(own, ignore_errors=True)


class Step(NamedTuple):
    """The step's own pod; `pod` and `uid` are empty outside a cluster.

    `attempt` distinguishes this attempt of the step from every other.
    """

    namespace: str
    attempt: str
    run: str = ""
    pod: str = ""
    uid: str = ""


def find_step() -> Step:
    """Returns this step, from the environment that the compiled package gives it."""
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


# The manifest


def manifest(
    key: str,
    engine: recipe.Engine,
    placement: Placement,
    step: Step,
    job_file: str,
    heartbeat: str,
    pace: jobset_api.Pace,
) -> dict[str, Any]:
    """Returns the JobSet that runs `job_file` with `marco train`; raises `InputError` as `job_counts` does.

    One training has one JobSet, and each replica is a Job of one pod. All of a replicated job share one template, so
    Kubernetes fills in the index in TF_CONFIG, from the label that JobSet writes on the pod.
    """
    name, replicas = f"marco-{key}", placement.training_replicas()
    labels = {MANAGED_BY: MANAGER, TRAINING: key, ATTEMPT: step.attempt}
    if step.run:
        labels[RUN] = re.sub(r"[^A-Za-z0-9._-]", "-", step.run)[:63].strip("-_.")
    metadata: dict[str, Any] = {"name": name, "namespace": step.namespace, "labels": labels}
    if step.uid:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": step.pod, "uid": step.uid}]
    cluster = {
        job: [f"{name}-{job}-{index}-0.{name}:{PORT}" for index in range(count)]  # The subdomain is the JobSet's name.
        for job, count in job_counts(engine, "cluster.replicas", replicas).items()
    }
    command = ["marco", "train", "--heartbeat", heartbeat, "--silence", str(pace.silence), job_file]
    replicated = []
    for job, hosts in cluster.items():
        tf_config = json.dumps({"cluster": cluster, "task": {"type": job, "index": "$(MARCO_INDEX)"}})
        resources = replicas.parameter_server if job == "ps" else replicas.worker
        returning = engine.kind == "parameter_server" and job == "worker"
        spec = {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": WORKER_RETRIES if returning else 0,
            "podFailurePolicy": {"rules": [{"action": "Ignore" if returning else "FailJob", **_DISRUPTED}]},
            "template": {
                "metadata": {"labels": labels | _NO_SIDECAR},
                "spec": _pod(placement, resources, tf_config, command, pace.grace),
            },
        }
        template = {"metadata": {"labels": labels}, "spec": spec}
        replicated.append({"name": job, "replicas": len(hosts), "template": template})
    return {
        "apiVersion": jobset_api.API_VERSION,
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": name, "publishNotReadyAddresses": True},
            "successPolicy": {"operator": "All", "targetReplicatedJobs": ["chief"]},
            "failurePolicy": {"maxRestarts": replicas.restarts, "rules": [_RESTARTS_UNCOUNTED]},
            "ttlSecondsAfterFinished": pace.kept,
            "replicatedJobs": replicated,
        },
    }


def _pod(placement: Placement, resources: Resources, tf_config: str, command: list[str], grace: int) -> dict[str, Any]:
    replicas = placement.training_replicas()
    index = {"fieldRef": {"fieldPath": "metadata.labels['jobset.sigs.k8s.io/job-index']"}}
    plain = {"HOME": "/tmp", **placement.environment}
    from_secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in placement.secrets
        for variable, key in secret.variables.items()
    ]
    limits: dict[str, Any] = {"cpu": f"{resources.cpu:g}", "memory": resources.memory}
    if resources.accelerators:
        limits[resources.accelerator] = str(resources.accelerators)
    volumes, mounts = _volumes(placement, resources)
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": replicas.service_account,
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
                    {"name": recipe.CLUSTER_VARIABLE, "value": tf_config},
                    *({"name": variable, "value": value} for variable, value in plain.items()),
                    *from_secrets,
                ],
                "ports": [{"containerPort": PORT, "name": "tensorflow"}],
                "resources": {"requests": limits, "limits": limits},
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
    if replicas.priority_class:
        pod["priorityClassName"] = replicas.priority_class
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


# The JobSet's beginning and end


def _create(api: jobset_api.Api, body: dict[str, Any], step: Step, seconds: float, notice: training.Notice) -> bool:
    """Creates the JobSet, once what an earlier attempt left is gone; returns False if a signal came first.

    Raises `ClusterError` if one of that name is someone else's, or of a step that still runs.
    """
    name, deadline = body["metadata"]["name"], time.monotonic() + seconds
    while not notice.signal:
        try:
            api.create(body)
            return True
        except jobset_api.Conflict:
            existing = api.get(name)
            if existing and _label(existing, ATTEMPT) == step.attempt:
                return True  # The answer to an earlier try was lost.
            if existing:
                _delete_leftover(api, existing, body, step, time.monotonic() > deadline)
        time.sleep(1.0)
    return False


def _delete_leftover(
    api: jobset_api.Api, existing: dict[str, Any], body: dict[str, Any], step: Step, late: bool
) -> None:
    name = existing["metadata"]["name"]
    for key in (MANAGED_BY, TRAINING):
        if _label(existing, key) != _label(body, key):
            raise errors.ClusterError(
                f"this pipeline did not make the JobSet {name} that exists; kubectl delete jobset {name}, or rename it"
            )
    if existing["metadata"].get("deletionTimestamp"):
        if late:
            raise errors.ClusterError(
                f"the JobSet {name} of an earlier attempt is not gone; see kubectl describe jobset {name}"
            )
        return
    owners = [owner["name"] for owner in existing["metadata"].get("ownerReferences", []) if owner["uid"] != step.uid]
    running = [owner for owner in owners if (pod := api.pod(owner)) and pod.status.phase in ("Pending", "Running")]
    if not running:
        api.delete(name)
    elif late:
        raise errors.ClusterError(
            f"the step {running[0]} trains the same as JobSet {name}; wait for it, or delete its run"
        )


def _delete(api: jobset_api.Api, name: str, step: Step, seconds: float, show: Callable[[str], None]) -> None:
    """Deletes the JobSet if it is of this attempt, and waits until it is gone.

    An API that refuses does not hide how training ended.
    """
    deadline, requested = time.monotonic() + seconds, False
    try:
        while (existing := api.get(name)) and _label(existing, ATTEMPT) == step.attempt:
            if not requested:
                api.delete(name)
                requested = True
            elif time.monotonic() > deadline:
                show(f"JobSet {name} is being deleted and not gone after {seconds:.0f} s")
                return
            time.sleep(min(1.0, seconds / 10))
    except errors.ClusterError as error:
        show(f"JobSet {name} could not be deleted ({error}); its replicas end when they miss the step's heartbeat")


def _label(body: dict[str, Any], key: str) -> str:
    return (body["metadata"].get("labels") or {}).get(key, "")


# Files that all replicas see


def shared_folder(place: str, key: str) -> Path:
    """Returns the folder of the training `key` below `place`, made if it did not exist.

    Raises `InputError` if `place` is not an absolute path, or can't be written.
    """
    if not place.startswith("/"):
        raise errors.InputError(
            f"cluster.shared is {place!r} and cluster.replicas is set; give a path in one of cluster.volumes"
        )
    folder = Path(place) / "trainings" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise errors.InputError(
            f"cluster.shared {place} can't be written ({error.strerror}); mount a volume there that user {os.getuid()} "
            "may write"
        ) from error
    return folder


def move_in(job: jobs.TrainingJob, place: str, own: Path) -> jobs.TrainingJob:
    """Returns the job as replicas see it: all files below `place`, the model in `own`; copies what lies elsewhere."""
    checkpoints = job.checkpoints
    if not ("://" in checkpoints or _within(checkpoints, place)):
        checkpoints = f"{place.rstrip('/')}/checkpoints/{job.key}"
    changes: dict[str, Any] = {
        "train_files": _copied(job.train_files, place, own / "data" / "train"),
        "validation_files": _copied(job.validation_files, place, own / "data" / "validation"),
        "checkpoints": checkpoints,
        "model_directory": str(own / "model" / PurePath(job.model_directory).name),
    }
    if job.left_out and "://" not in job.left_out.sources:
        copy = own / "data" / PurePath(job.left_out.sources).name
        store.write_bytes(str(copy), store.read_bytes(job.left_out.sources))
        changes["left_out"] = job.left_out.model_copy(update={"sources": str(copy)})
    return job.model_copy(update=changes)


def _copied(files: list[str], place: str, target: Path) -> list[str]:
    """Returns where all replicas see the files; a file that has its name in `target` is complete."""
    outside = [file for file in files if "://" not in file and not _within(file, place)]
    # Files of several folders may have one name.
    copies = {file: target / f"{number:05d}-{PurePath(file).name}" for number, file in enumerate(outside)}
    sizes = {file: Path(file).stat().st_size for file in outside}
    missing = [file for file, copy in copies.items() if not (copy.is_file() and copy.stat().st_size == sizes[file])]
    if missing:
        target.mkdir(parents=True, exist_ok=True)
        size, room = sum(sizes[file] for file in missing), shutil.disk_usage(target).free
        if size > room:
            raise errors.InputError(
                f"{target} has {room:,} bytes left, the examples have {size:,}; give cluster.shared more"
            )
        with progress(f"Copying to {target}", len(missing), "files") as advance:
            for file in missing:
                with Path(file).open("rb") as source, store.whole_file(copies[file], "wb") as copy:
                    shutil.copyfileobj(source, copy)
                advance()
        index = example_files.read_index(outside)
        lengths = {copies[file].name: index.length[index.file == place] for place, file in enumerate(index.files)}
        example_files.write_index(str(target), lengths)
    return [str(copies.get(file, file)) for file in files]


def _within(path: str, place: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(place))


def move_out(inside: jobs.TrainingJob, job: jobs.TrainingJob) -> None:
    """Puts the model that the replicas left for `inside`, with what lies beside it, where `job` wants it."""
    from tfx.utils import io_utils

    source, target = (
        directory.rstrip("/").rpartition("/")[0] for directory in (inside.model_directory, job.model_directory)
    )
    io_utils.copy_dir(source, target)


# The heartbeat


@contextlib.contextmanager
def beating(file: str, every: float) -> Iterator[None]:
    """Changes `file` every so many seconds while the context lasts."""
    stop = threading.Event()

    def write() -> None:
        store.write_bytes(file, uuid.uuid4().hex.encode())

    def beat() -> None:
        while not stop.wait(every):
            # A volume may fail for a moment; the next beat comes.
            with contextlib.suppress(OSError):
                write()

    write()
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def end_with(file: str, silence: float) -> None:
    """Ends this process as at a preemption once `file` has not changed for `silence` seconds.

    It gets SIGTERM, on which training saves and ends with 143; after `GRACE` more seconds it ends with 143 regardless.
    """

    def read() -> str:
        with contextlib.suppress(OSError):
            return Path(file).read_text()
        return ""

    def watch() -> None:
        content, changed = read(), time.monotonic()
        while time.monotonic() - changed < silence:
            time.sleep(min(1.0, silence / 4))
            current = read()
            if current not in ("", content):
                content, changed = current, time.monotonic()
        log.warning("%s has not changed for %.0f s: the step that started this is gone; ending", file, silence)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="heartbeat", daemon=True).start()
