"""Batch prediction on Vertex AI for images in a bucket, and its results as the table that `marco predict` writes.

Vertex AI takes images as lines of JSON, so they are copied once, as base64, beside the results. A list of files would
do without the copy, but the API's reference does not say by what its results name the files; of lines with a key it
does (`BatchPredictionJob.InstanceConfig.key_field`).
"""

from __future__ import annotations

import base64
import collections
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from components.endpoint_pusher import versions
from components.endpoint_pusher.options import Endpoint
from components.vertex.api import Api
from marco_data import object_store
from marco_data.file_names import drop_place
from marco_data.files import read_bytes
from marco_data.image_files import ENDINGS, encoded_image
from marco_data.object_store import Object
from marco_data.progress import progress
from marco_model.errors import ClusterError, InputError
from pipelines.prediction import Outcome, columns
from pipelines.result_tables import result_tables

KEY, LABEL = "key", "marco-batch"
SHARD = 1_000
"""Images in a file of the input."""

_ENDED = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


def images(place: str) -> list[Object]:
    """Returns the images below a `gs://` URI, by name; raises `InputError` where there are none."""
    if not object_store.is_object(place):
        raise InputError(f"--input is {place}; give gs://BUCKET/FOLDER, or score a folder here with marco predict")
    found = [one for one in object_store.list_objects(f"{place.rstrip('/')}/") if one.uri.lower().endswith(ENDINGS)]
    if not found:
        raise InputError(f"no images below {place}; endings looked for: {' '.join(ENDINGS)}")
    return found


def mark(version: versions.Version, found: Sequence[Object]) -> str:
    """Returns what stands for a version over these very images, as a label's value."""
    told = json.dumps([version.name.rsplit("/", 1)[1], [(one.uri, one.crc32c) for one in found]])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def upload(found: Sequence[Object], place: str) -> tuple[list[str], dict[str, str]]:
    """Writes the images below `place` as Vertex AI takes them; returns the files, and why which images are left out."""
    written, left_out = [], {}
    with progress("copying", len(found)) as advance:
        for number in range(0, len(found), SHARD):
            uri = f"{place}/images-{number // SHARD:05d}.jsonl"
            with tempfile.TemporaryDirectory() as folder:
                lines = Path(folder) / "images.jsonl"
                with lines.open("w") as file:
                    for one in found[number : number + SHARD]:
                        local = Path(folder) / f"image{PurePosixPath(one.uri).suffix}"
                        object_store.download(one.uri, local)
                        try:
                            encoded = base64.b64encode(encoded_image(local)).decode()
                            file.write(json.dumps({KEY: one.uri, "image_bytes": {"b64": encoded}}) + "\n")
                        except InputError as error:
                            left_out[one.uri] = str(error)
                        advance(1)
                if lines.stat().st_size:
                    object_store.upload(lines, uri)
                    written.append(uri)
    return written, left_out


def run(api: Api, options: Endpoint, version: versions.Version, inputs: Sequence[str], output: str, note: str) -> str:
    """Returns the folder of the results of a batch prediction, which is followed to its end.

    One of the same version over the same images that runs or has succeeded is taken in the place of a new one.

    Raises `ClusterError` where it fails.
    """
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
    job = api.ensure(lambda: _there(api, note), lambda: api.act("Job", "create_batch_prediction_job", request))
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


def _there(api: Api, note: str) -> Any | None:
    request = {"parent": api.place.parent}
    listed = api.listed("Job", "list_batch_prediction_jobs", request, "batch_prediction_jobs")
    same = [one for one in listed if one.labels.get(LABEL) == note]
    return next((one for one in same if _state(one) not in ("FAILED", "CANCELLED", "EXPIRED", "CANCELLING")), None)


def _state(job: Any) -> str:
    return str(job.state.name.removeprefix("JOB_STATE_"))


def results(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each image's URI with its prediction, out of the folder of a batch prediction's results."""
    for one in object_store.list_objects(f"{folder.rstrip('/')}/prediction"):
        if "errors" in one.uri.rsplit("/", 1)[1]:
            continue
        for line in read_bytes(one.uri).decode().splitlines():
            told = json.loads(line)
            yield told[KEY], told["prediction"]


def table(
    found: Sequence[Object],
    predicted: dict[str, dict[str, Any]],
    left_out: dict[str, str],
    name: str,
    output: Path,
) -> Outcome:
    """Writes the scores in the form of `marco predict`, in the order of `found`, and the rest into its second file.

    `name`: the model's, where its answers have none. Raises `ClusterError` where there is no prediction at all.
    """
    if not predicted:
        raise ClusterError("the batch prediction gave no results; see its page on the console")
    classes = list(next(iter(predicted.values()))["classes"])
    by_class: collections.Counter[str] = collections.Counter(dict.fromkeys(classes, 0))
    failed = 0
    with result_tables(output, columns(classes)) as (write, write_failure):
        for one in found:
            told = predicted.get(one.uri)
            if told is None:
                write_failure((one.uri, left_out.get(one.uri, "Vertex AI gave no prediction")))
                failed += 1
                continue
            scores = dict(zip(told["classes"], told["scores"], strict=True))
            label = max(scores, key=lambda key: scores[key])
            by_class[label] += 1
            place = drop_place(PurePosixPath(one.uri).name)
            row = (f"{scores[key]:.7f}" for key in classes)
            write((one.uri, *place, label, *row, told.get("version") or name))
    return Outcome(dict(by_class), failed)
