"""One batch prediction on Vertex AI: found again by its label, or begun, and followed to its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from components.endpoint_pusher import versions
from components.endpoint_pusher.options import Endpoint
from components.vertex.api import Api
from marco_data import object_store
from marco_model.errors import ClusterError

KEY, LABEL = "key", "marco-batch"
_ENDED = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
_LOST = ("FAILED", "CANCELLED", "EXPIRED", "CANCELLING")


def there(api: Api, note: str) -> Any | None:
    """Returns the job labelled `note` that runs, or has ended and whose results are still there; None without one."""
    return next((one for one in _labelled(api, note) if not _of_no_use(one)), None)


def begin(api: Api, options: Endpoint, version: versions.Version, inputs: Sequence[str], output: str, note: str) -> Any:
    """Returns a new job labelled `note` over the files `inputs`, or one that somebody else began meanwhile."""
    machine: dict[str, Any] = {"machine_type": options.machine_type}
    if options.accelerators:
        machine |= {"accelerator_type": options.accelerator, "accelerator_count": options.accelerators}
    body = {
        "display_name": f"marco-{note[:12]}",
        "model": version.name,
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": list(inputs)}},
        "instance_config": {"instance_type": "object", "key_field": KEY},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": output}},
        "dedicated_resources": {
            "machine_spec": machine,
            "starting_replica_count": options.min_replicas,
            "max_replica_count": options.max_replicas,
        },
        "labels": {LABEL: note},
    }
    request = {"parent": api.place.parent, "batch_prediction_job": body}
    # Looked at once: of the new job nobody asks whether it has results yet.
    useless = {one.name for one in _labelled(api, note) if _of_no_use(one)}

    def look() -> Any | None:
        return next((one for one in _labelled(api, note) if one.name not in useless and _state(one) not in _LOST), None)

    return api.ensure(look, lambda: api.act("Job", "create_batch_prediction_job", request))


def follow(api: Api, job: Any) -> str:
    """Returns the folder of a job's results, once it has ended; raises `ClusterError` where it fails."""
    api.show(f"Batch prediction {job.name.rsplit('/', 1)[1]}")
    told = ""
    while (state := _state(job)) not in _ENDED:
        if state != told:
            told = state
            api.show(state.lower())
        time.sleep(api.pace.look)
        job = api.read("Job", "get_batch_prediction_job", {"name": job.name})
    if "SUCCEEDED" not in state:
        said = " ".join(str(job.error.message).split())[:300]
        raise ClusterError(f"batch prediction {job.name} {state.lower()} ({said}); mend it and run again")
    return str(job.output_info.gcs_output_directory)


def result_files(folder: str) -> list[str]:
    """Returns the files of predictions in the folder of a job's results; those of errors are left out."""
    found = object_store.list_objects(f"{folder.rstrip('/')}/prediction")
    return [one.uri for one in found if "errors" not in one.uri.rsplit("/", 1)[1]]


def _labelled(api: Api, note: str) -> list[Any]:
    request = {"parent": api.place.parent}
    listed = api.listed("Job", "list_batch_prediction_jobs", request, "batch_prediction_jobs")
    return [one for one in listed if one.labels.get(LABEL) == note]


def _of_no_use(job: Any) -> bool:
    """Whether a job ended without results, or somebody has deleted them since."""
    folder = str(job.output_info.gcs_output_directory)
    return _state(job) in _LOST or (_state(job) in _ENDED and not (folder and result_files(folder)))


def _state(job: Any) -> str:
    return str(job.state.name.removeprefix("JOB_STATE_"))
