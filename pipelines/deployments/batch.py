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
from pipelines.deployments import batch_job
from pipelines.prediction import Outcome, columns
from pipelines.result_tables import result_tables

SHARD = 1_000
"""Images in a file of the input."""

_LEFT_OUT = "left-out.json"
"""Beside the input: why which images are not in it, for whoever finds the job again."""


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
                        object_store.download(one.uri, local)
                        try:
                            encoded = base64.b64encode(encoded_image(local)).decode()
                            file.write(json.dumps({batch_job.KEY: one.uri, "image_bytes": {"b64": encoded}}) + "\n")
                        except InputError as error:
                            left_out[one.uri] = str(error)
                        advance(1)
                if lines.stat().st_size:
                    object_store.upload(lines, uri)
                    written.append(uri)
    with tempfile.TemporaryDirectory() as folder:
        reasons = Path(folder) / _LEFT_OUT
        reasons.write_text(json.dumps(left_out))
        object_store.upload(reasons, f"{place}/{_LEFT_OUT}")
    return written, left_out


def predictions(
    api: Api, options: Endpoint, version: versions.Version, found: Sequence[Object], place: str, note: str
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Returns the predictions of images by their URIs, and why which images were left out.

    A job of the same version over the same images that runs, or whose results are there, is taken in the place of a new
    one; without an image that can be read there is none at all. `place`: URI below which Vertex AI reads and writes.

    Raises `ClusterError` where the job fails or gives nothing.
    """
    job = batch_job.there(api, note)
    if job is not None:
        reasons = f"{job.input_config.gcs_source.uris[0].rsplit('/', 1)[0]}/{_LEFT_OUT}"
        left_out = json.loads(read_bytes(reasons)) if object_store.exists(reasons) else {}
    else:
        inputs, left_out = upload(found, f"{place}/input")
        if not inputs:
            return {}, left_out
        job = batch_job.begin(api, options, version, inputs, f"{place}/output", note)
    predicted = dict(results(batch_job.follow(api, job)))
    if not predicted:
        raise ClusterError(f"batch prediction {job.name} gave no results; see its page on the console")
    return predicted, left_out


def results(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each image's URI with its prediction, out of the folder of a batch prediction's results."""
    for uri in batch_job.result_files(folder):
        for line in read_bytes(uri).decode().splitlines():
            told = json.loads(line)
            yield told[batch_job.KEY], told["prediction"]


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
