"""Batch prediction on Vertex AI for images in a bucket, and its results as the table that `marco predict` writes.

Vertex AI reads images as lines of JSON, so they are copied once, as base64, next to the results. A list of files would
need no copy, but the API's reference does not say how its results name the files; for lines with a key it does
(`BatchPredictionJob.InstanceConfig.key_field`).
"""

import base64
import collections
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from components.vertex.api import ENDED, Api, state_of
from components.vertex.endpoints import Version
from components.vertex.options import Endpoint
from marco_data import image_files, places, progress
from marco_model import errors, store
from marco_scoring import prediction, score_table

SHARD = 1_000
"""Images in a file of the input."""

_LEFT_OUT = "left-out.json"
"""Next to the input: the reason for each image left out, for a later command that finds the job."""

KEY, LABEL = "key", "marco-batch"
_LOST = ("FAILED", "CANCELLED", "EXPIRED", "CANCELLING")


def images(place: str) -> list[store.Object]:
    """Returns the images below a `gs://` URI, by name; raises `InputError` where there are none."""
    if not store.is_object(place):
        raise errors.InputError(
            f"--input is {place}; give gs://BUCKET/FOLDER, or score a folder here with marco predict"
        )
    root = f"{place.rstrip('/')}/"
    objects = [entry for entry in store.list_objects(root) if image_files.is_image_below(entry.uri.removeprefix(root))]
    if not objects:
        raise errors.InputError(f"no images below {place}; endings looked for: {' '.join(image_files.ENDINGS)}")
    return objects


def mark(version: Version, objects: Sequence[store.Object]) -> str:
    """Returns an identity of a version and exactly these images, as a label's value."""
    key = json.dumps([version.name.rsplit("/", 1)[1], [(image.uri, image.crc32c) for image in objects]])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def predictions(
    api: Api, settings: Endpoint, version: Version, objects: Sequence[store.Object], place: str, note: str
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Returns the predictions of images by URI, and the reason for each image left out.

    Reuses a job of the same version over the same images that is running or whose results exist. If no image can be
    read, no job is started. `place`: URI below which Vertex AI reads and writes.

    Raises `ClusterError` if the job fails or gives no results.
    """
    job = next((job for job in _list_jobs(api, note) if not _of_no_use(job)), None)
    if job is not None:
        reasons = f"{job.input_config.gcs_source.uris[0].rsplit('/', 1)[0]}/{_LEFT_OUT}"
        left_out = store.read_json(reasons)
    else:
        inputs, left_out = upload(objects, f"{place}/input")
        if not inputs:
            return {}, left_out
        job = begin_job(api, settings, version, inputs, f"{place}/output", note)
    predicted = dict(results(follow_job(api, job)))
    if not predicted:
        raise errors.ClusterError(f"batch prediction {job.name} gave no results; see its page on the console")
    return predicted, left_out


def table(
    objects: Sequence[store.Object],
    predicted: Mapping[str, dict[str, Any]],
    left_out: Mapping[str, str],
    name: str,
    output: Path,
) -> prediction.Outcome:
    """Writes the scores in the form of `marco predict`, in the order of `objects`, and the rest into its second file.

    `predicted`: `scores`, `classes` and perhaps `version` of each image, or its `error`, which `marco serve` answers
    where an image does not decode. `name`: the model's, where its answers have none. The table has neither
    probabilities nor the sizes and times of files, and appears only when complete.
    """
    classes = next((list(answer["classes"]) for answer in predicted.values() if "scores" in answer), [])

    by_class = collections.Counter(dict.fromkeys(classes, 0))
    failed = 0
    with prediction.result_tables(output, score_table.columns(classes)) as (write, write_failure):
        for image in objects:
            answer = predicted.get(image.uri, {})
            if "scores" in answer:
                scores = dict(zip(answer["classes"], answer["scores"], strict=True))
                model, place = answer.get("version") or name, places.place_of(image.uri)
                cells = score_table.row(image.uri, classes, [scores[key] for key in classes], model, place)
                by_class[cells["class"]] += 1
                write([f"{cell:.7f}" if isinstance(cell, float) else cell for cell in cells.values()])
            else:
                reason = left_out.get(image.uri) or answer.get("error") or "Vertex AI gave no prediction"
                write_failure((image.uri, reason))
                failed += 1
    return prediction.Outcome(dict(by_class), failed)


def upload(objects: Sequence[store.Object], place: str) -> tuple[list[str], dict[str, str]]:
    """Writes the images below `place` as JSON lines; returns the files, and the reason for each image left out.

    The reasons are written there too.
    """
    written, left_out = [], {}
    with progress.progress("copying", len(objects)) as advance:
        for number in range(0, len(objects), SHARD):
            uri = f"{place}/images-{number // SHARD:05d}.jsonl"
            with tempfile.TemporaryDirectory() as folder:
                lines = Path(folder) / "images.jsonl"
                with lines.open("w") as file:
                    for image in objects[number : number + SHARD]:
                        local = Path(folder) / f"image{PurePosixPath(image.uri).suffix}"
                        store.download(image.uri, local)
                        try:
                            encoded = base64.b64encode(image_files.encoded_image(local)).decode()
                            file.write(json.dumps({KEY: image.uri, "image_bytes": {"b64": encoded}}) + "\n")
                        except errors.InputError as error:
                            left_out[image.uri] = str(error)
                        advance(1)
                if lines.stat().st_size:
                    store.upload(lines, uri)
                    written.append(uri)
    store.write_bytes(f"{place}/{_LEFT_OUT}", json.dumps(left_out).encode())
    return written, left_out


def begin_job(api: Api, settings: Endpoint, version: Version, inputs: Sequence[str], output: str, note: str) -> Any:
    """Starts a job labelled `note` over `inputs` and returns it, or one that another client started meanwhile."""
    body = {
        "display_name": f"marco-{note[:12]}",
        "model": version.name,
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": list(inputs)}},
        "instance_config": {"instance_type": "object", "key_field": KEY},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": output}},
        "dedicated_resources": {
            "machine_spec": settings.machine.spec(),
            "starting_replica_count": settings.min_replicas,
            "max_replica_count": settings.max_replicas,
        },
        "labels": {LABEL: note},
    }
    request = {"parent": api.place.parent, "batch_prediction_job": body}
    # Evaluated once: the new job has no results yet and must not count as useless.
    useless = {job.name for job in _list_jobs(api, note) if _of_no_use(job)}

    def look() -> Any | None:
        return next(
            (job for job in _list_jobs(api, note) if job.name not in useless and state_of(job) not in _LOST), None
        )

    return api.ensure(look, lambda: api.act("Job", "create_batch_prediction_job", request))


def follow_job(api: Api, job: Any) -> str:
    """Waits for a job and returns the folder of its results; raises `ClusterError` if it fails."""
    api.show(f"Batch prediction {job.name.rsplit('/', 1)[1]}")
    shown = ""
    while (state := state_of(job)) not in ENDED:
        if state != shown:
            shown = state
            api.show(state.lower())
        time.sleep(api.pace.look)
        job = api.read("Job", "get_batch_prediction_job", {"name": job.name})
    if "SUCCEEDED" not in state:
        reason = errors.one_line(str(job.error.message), 300)
        raise errors.ClusterError(
            f"batch prediction {job.name} {state.lower()} ({reason}); fix the cause and run again"
        )
    return str(job.output_info.gcs_output_directory)


def result_files(folder: str) -> list[str]:
    """Returns the files of predictions in the folder of a job's results; those of errors are left out."""
    entries = store.list_objects(f"{folder.rstrip('/')}/prediction")
    return [entry.uri for entry in entries if "errors" not in entry.uri.rsplit("/", 1)[1]]


def _list_jobs(api: Api, note: str) -> list[Any]:
    request = {"parent": api.place.parent}
    jobs = api.list_all("Job", "list_batch_prediction_jobs", request, "batch_prediction_jobs")
    return [job for job in jobs if job.labels.get(LABEL) == note]


def _of_no_use(job: Any) -> bool:
    """Whether a job ended without results, or its results have been deleted."""
    folder = str(job.output_info.gcs_output_directory)
    return state_of(job) in _LOST or (state_of(job) in ENDED and not (folder and result_files(folder)))


def results(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each image's URI with its prediction from the folder of a batch prediction's results."""
    for uri in result_files(folder):
        for line in store.read_bytes(uri).decode().splitlines():
            answer = json.loads(line)
            yield answer[KEY], answer["prediction"]
