"""The Trainer step when training is on several machines of Vertex AI: makes the CustomJob, and follows it.

All see the same files, artifacts and checkpoints on `gs://`. The chief writes the model where the step wants
it, so nothing is moved.
"""

import contextlib
import time
import uuid
from typing import Any

from components import machines
from components.trainer.job import FILE, CustomJob, TrainingJob
from components.vertex.api import ENDED, PACE, Api, Pace, Unsure, state_of
from components.vertex.options import Machine
from marco_model import errors, store, training

TRAINING, ATTEMPT = "marco-training", "marco-attempt"
_ACTIVE = ("QUEUED", "PENDING", "RUNNING", "PAUSED", "UPDATING")
_CANCEL_SECONDS = 300.0


def run(job: TrainingJob, options: CustomJob, pace: Pace = PACE) -> None:
    """Trains `job` on the machines of `options`.

    If an interrupted step left a CustomJob of the same training running, follows that one.

    Raises:
        InputError: checkpoints are not on `gs://`, or machines and engine don't fit.
        ClusterError: the training failed, or Vertex AI refuses.
        Interrupted: SIGTERM or SIGINT came; the CustomJob is cancelled, and saves.
    """
    if not job.checkpoints.startswith("gs://"):
        raise errors.InputError(
            f"checkpoints lie in {job.checkpoints}, which other machines can't see; give --root gs://…"
        )
    api, attempt = Api(options.place, pace), uuid.uuid4().hex[:12]
    job.write()
    request = {"parent": options.place.parent, "custom_job": message(job, options, attempt)}
    with training.defer_signals() as notice:
        made = api.ensure(
            lambda: _existing(api, job.key, attempt), lambda: api.act("Job", "create_custom_job", request)
        )
        api.show(f"CustomJob {made.name.rsplit('/', 1)[1]}; its log is in Cloud Logging")
        state = _follow(api, made.name, notice)
        if state is None:
            raise errors.Interrupted(
                "training stopped and its CustomJob is cancelled; run again to go on from the last checkpoint",
                notice.signal,
            )
    if "SUCCEEDED" not in state:
        error = api.read("Job", "get_custom_job", {"name": made.name}).error.message
        reason = errors.one_line(error, 300) if error else ""
        raise errors.ClusterError(
            f"training failed: CustomJob {made.name} {state.lower()} ({reason}); run again to go on"
        )
    if not store.exists(f"{job.model_directory}/saved_model.pb"):
        raise errors.ClusterError(f"CustomJob {made.name} has ended, and there is no model in {job.model_directory}")


def message(job: TrainingJob, options: CustomJob, attempt: str) -> dict[str, Any]:
    """Returns the CustomJob that runs the training `job` with `marco train`; `attempt` identifies this try of the step.

    Raises `InputError` as `components.machines.job_counts` does.
    """
    pools, place = options.machines, options.place
    container = {
        "image_uri": options.image,
        "command": ["marco", "train", f"{job.checkpoints}/{FILE}"],
        "env": [{"name": name, "value": value} for name, value in options.environment.items()],
    }
    machine = Machine(pools.machine_type, pools.accelerator, pools.accelerators).spec()
    plain = {"machine_type": pools.parameter_server_machine_type}
    spec: dict[str, Any] = {
        "worker_pool_specs": [
            {"replica_count": count, "machine_spec": plain if name == "ps" else machine, "container_spec": container}
            for name, count in machines.job_counts(job.engine, "machines", pools).items()
        ],
        # Synchronous workers end with one of them, and start again together from the last checkpoint.
        "scheduling": {
            "timeout": {"seconds": int(pools.hours * 3600)},
            "restart_job_on_worker_restart": job.engine.kind == "multi_worker",
        },
    }
    if place.service_account:
        spec["service_account"] = place.service_account
    if place.network:
        spec["network"] = place.network
    labels = {TRAINING: job.key[:63], ATTEMPT: attempt}
    return {"display_name": f"marco-{job.key}", "job_spec": spec, "labels": labels}


def _existing(api: Api, key: str, attempt: str) -> Any | None:
    """Returns the job of this attempt or, of an earlier one, a job that still runs."""
    jobs = api.list_all("Job", "list_custom_jobs", {"parent": api.place.parent}, "custom_jobs")
    same = [job for job in jobs if job.labels.get(TRAINING) == key[:63]]
    own = [job for job in same if job.labels.get(ATTEMPT) == attempt]
    return next(iter([*own, *(job for job in same if state_of(job) in _ACTIVE)]), None)


def _follow(api: Api, name: str, notice: training.Notice) -> str | None:
    """Returns how the job ended, None if it was cancelled at a signal."""
    shown, deadline = "", 0.0
    while True:
        state = state_of(api.read("Job", "get_custom_job", {"name": name}))
        if state != shown:
            shown = state
            api.show(f"CustomJob: {state.lower()}")
        if state in ENDED:
            return None if deadline else state
        if notice.signal and not deadline:
            with contextlib.suppress(Unsure):  # The next round asks again.
                api.act("Job", "cancel_custom_job", {"name": name})
                deadline = time.monotonic() + _CANCEL_SECONDS
        if deadline and time.monotonic() > deadline:
            return None
        time.sleep(api.pace.look)
