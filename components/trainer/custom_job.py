"""The Trainer step where training is on several machines of Vertex AI: makes the CustomJob, and follows it.

All see the same files: artifacts below `/gcs/`, checkpoints on `gs://`. The chief writes the model where the step wants
it, so nothing is moved.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Any

import tensorflow as tf

from components import machines
from components.trainer.job import FILE, CustomJob, TrainingJob
from components.vertex.api import PACE, Api, Pace, Unsure
from marco_model import training
from marco_model.errors import ClusterError, InputError, Interrupted

_ACTIVE = ("QUEUED", "PENDING", "RUNNING", "PAUSED", "UPDATING")
_ENDED = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
_CANCEL_SECONDS = 300.0


def run(job: TrainingJob, custom_job: CustomJob, pace: Pace = PACE) -> None:
    """Trains `job` on the machines of `custom_job`.

    If an interrupted step left a CustomJob of the same training running, follows that one.

    Raises:
        InputError: checkpoints are not on `gs://`, or machines and engine don't fit.
        ClusterError: the training failed, or Vertex AI refuses.
        Interrupted: SIGTERM or SIGINT came; the CustomJob is cancelled, and saves.
    """
    if not job.checkpoints.startswith("gs://"):
        raise InputError(f"checkpoints lie in {job.checkpoints}, which other machines can't see; give --root gs://…")
    place = custom_job.place
    api, attempt = Api(place, pace), uuid.uuid4().hex[:12]
    job.write()
    body = machines.custom_job(
        job.key,
        attempt,
        job.engine,
        custom_job.machines,
        image=custom_job.image,
        environment=custom_job.environment,
        job_file=f"{job.checkpoints}/{FILE}",
        service_account=place.service_account,
        network=place.network,
    )
    with training.defer_signals() as notice:
        request = {"parent": place.parent, "custom_job": body}
        seen = api.ensure(lambda: _there(api, job.key, attempt), lambda: api.act("Job", "create_custom_job", request))
        api.show(f"CustomJob {seen.name.rsplit('/', 1)[1]}; its log is in Cloud Logging")
        state = _follow(api, seen.name, notice)
        if state is None:
            raise Interrupted(
                "training stopped and its CustomJob is cancelled; run again to go on from the last checkpoint",
                notice.signal,
            )
    if "SUCCEEDED" not in state:
        ended = api.read("Job", "get_custom_job", {"name": seen.name})
        said = " ".join(str(ended.error.message).split())[:300]
        raise ClusterError(f"training failed: CustomJob {seen.name} {state.lower()} ({said}); run again to go on")
    if not tf.io.gfile.exists(f"{job.model_directory}/saved_model.pb"):
        raise ClusterError(f"CustomJob {seen.name} has ended, and there is no model in {job.model_directory}")


def _there(api: Api, key: str, attempt: str) -> Any | None:
    """Returns the job of this attempt or, of an earlier one, a job that still runs."""
    listed = api.listed("Job", "list_custom_jobs", {"parent": api.place.parent}, "custom_jobs")
    same = [one for one in listed if one.labels.get(machines.TRAINING) == key[:63]]
    ours = [one for one in same if one.labels.get(machines.ATTEMPT) == attempt]
    return next(iter([*ours, *(one for one in same if _state(one) in _ACTIVE)]), None)


def _follow(api: Api, name: str, notice: training.Notice) -> str | None:
    """Returns how the job ended, None where it was cancelled at a signal."""
    told, until = "", 0.0
    while True:
        state = _state(api.read("Job", "get_custom_job", {"name": name}))
        if state != told:
            told = state
            api.show(f"CustomJob: {state.lower()}")
        if state in _ENDED:
            return None if until else state
        if notice.signal and not until:
            with contextlib.suppress(Unsure):  # The next look asks again.
                api.act("Job", "cancel_custom_job", {"name": name})
                until = time.monotonic() + _CANCEL_SECONDS
        if until and time.monotonic() > until:
            return None
        time.sleep(api.pace.look)


def _state(job: Any) -> str:
    return str(job.state.name.removeprefix("JOB_STATE_"))
