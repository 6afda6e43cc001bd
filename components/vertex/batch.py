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

from components.vertex import endpoints
from components.vertex.api import Api
from components.vertex.options import Endpoint
from marco_data.image_files import ENDINGS, drop_place, encoded_image
from marco_data.progress import progress
from marco_model import store
from marco_model.errors import ClusterError, InputError
from marco_model.store import Object, read_bytes
from marco_scoring.prediction import Outcome, columns, result_tables

KEY, LABEL = "key", "marco-batch"
_ENDED = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
_LOST = ("FAILED", "CANCELLED", "EXPIRED", "CANCELLING")


def find_job(api: Api, note: str) -> Any | None:
    """Returns the job labelled `note` that runs, or has ended and whose results are still there; None without one."""
    return next((one for one in _labelled(api, note) if not _of_no_use(one)), None)


def begin_job(
    api: Api, options: Endpoint, version: endpoints.Version, inputs: Sequence[str], output: str, note: str
) -> Any:
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


def follow_job(api: Api, job: Any) -> str:
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
    found = store.list_objects(f"{folder.rstrip('/')}/prediction")
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


SHARD = 1_000
"""Images in a file of the input."""

_LEFT_OUT = "left-out.json"
"""Beside the input: why which images are not in it, for whoever finds the job again."""


def images(place: str) -> list[Object]:
    """Returns the images below a `gs://` URI, by name; raises `InputError` where there are none."""
    if not store.is_object(place):
        raise InputError(f"--input is {place}; give gs://BUCKET/FOLDER, or score a folder here with marco predict")
    found = [one for one in store.list_objects(f"{place.rstrip('/')}/") if one.uri.lower().endswith(ENDINGS)]
    if not found:
        raise InputError(f"no images below {place}; endings looked for: {' '.join(ENDINGS)}")
    return found


def mark(version: endpoints.Version, found: Sequence[Object]) -> str:
    """Returns what stands for a version over these very images, as a label's value."""
    told = json.dumps([version.name.rsplit("/", 1)[1], [(one.uri, one.crc32c) for one in found]])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def upload(found: Sequence[Object], place: str) -> tuple[list[str], dict[str, str]]:
    """Writes the images below `place` as Vertex AI takes them; returns the files, and why which images are left out.

    The latter is written there too.
    """
    written, left_out = [], {}
    with progress("copying", len(found)) as advance:
        for number in range(0, len(found), SHARD):
            uri = f"{place}/images-{number // SHARD:05d}.jsonl"
            with tempfile.TemporaryDirectory() as folder:
                lines = Path(folder) / "images.jsonl"
                with lines.open("w") as file:
                    for one in found[number : number + SHARD]:
                        local = Path(folder) / f"image{PurePosixPath(one.uri).suffix}"
                        store.download(one.uri, local)
                        try:
                            encoded = base64.b64encode(encoded_image(local)).decode()
                            file.write(json.dumps({KEY: one.uri, "image_bytes": {"b64": encoded}}) + "\n")
                        except InputError as error:
                            left_out[one.uri] = str(error)
                        advance(1)
                if lines.stat().st_size:
                    store.upload(lines, uri)
                    written.append(uri)
    with tempfile.TemporaryDirectory() as folder:
        reasons = Path(folder) / _LEFT_OUT
        reasons.write_text(json.dumps(left_out))
        store.upload(reasons, f"{place}/{_LEFT_OUT}")
    return written, left_out


def predictions(
    api: Api, options: Endpoint, version: endpoints.Version, found: Sequence[Object], place: str, note: str
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Returns the predictions of images by their URIs, and why which images were left out.

    A job of the same version over the same images that runs, or whose results are there, is taken in the place of a new
    one; without an image that can be read there is none at all. `place`: URI below which Vertex AI reads and writes.

    Raises `ClusterError` where the job fails or gives nothing.
    """
    job = find_job(api, note)
    if job is not None:
        reasons = f"{job.input_config.gcs_source.uris[0].rsplit('/', 1)[0]}/{_LEFT_OUT}"
        left_out = json.loads(read_bytes(reasons)) if store.object_exists(reasons) else {}
    else:
        inputs, left_out = upload(found, f"{place}/input")
        if not inputs:
            return {}, left_out
        job = begin_job(api, options, version, inputs, f"{place}/output", note)
    predicted = dict(results(follow_job(api, job)))
    if not predicted:
        raise ClusterError(f"batch prediction {job.name} gave no results; see its page on the console")
    return predicted, left_out


def results(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each image's URI with its prediction, out of the folder of a batch prediction's results."""
    for uri in result_files(folder):
        for line in read_bytes(uri).decode().splitlines():
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

    `predicted`: `scores`, `classes` and perhaps `version` of each image, or its `error`, which `marco serve` answers
    where an image does not decode. `name`: the model's, where its answers have none.
    """
    classes = next((list(told["classes"]) for told in predicted.values() if "scores" in told), [])
    by_class: collections.Counter[str] = collections.Counter(dict.fromkeys(classes, 0))
    failed = 0
    with result_tables(output, columns(classes)) as (write, write_failure):
        for one in found:
            told = predicted.get(one.uri, {})
            if "scores" not in told:
                reason = left_out.get(one.uri) or told.get("error") or "Vertex AI gave no prediction"
                write_failure((one.uri, reason))
                failed += 1
                continue
            scores = dict(zip(told["classes"], told["scores"], strict=True))
            label = max(scores, key=lambda key: scores[key])
            by_class[label] += 1
            place = drop_place(PurePosixPath(one.uri).name)
            row = (f"{scores[key]:.7f}" for key in classes)
            write((one.uri, *place, label, *row, told.get("version") or name))
    return Outcome(dict(by_class), failed)
