"""Images to rows, on Beam: find, sample by imager, read, measure, classify.

Nothing of an image but its name is read before the sample is drawn, for shards nothing but their records' features, so
that the expensive part, the classifier, sees only the sample.
"""

from __future__ import annotations

import atexit
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import apache_beam as beam
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.example_gen import files
from components.monitoring import images
from components.monitoring.images import Candidate, Found, Naming
from components.monitoring.statistics import SCHEMA, Table, decoded, from_rows, image_statistics, middle
from components.settings import LOCAL_BEAM_ARGS
from marco_data.shards import list_files
from marco_model.errors import InputError
from marco_model.store import read_bytes

Described = tuple[np.ndarray, np.ndarray]


class Describer:
    """A classifier that returns embeddings beside scores.

    Raises InputError if the folder holds no classifier, or one exported without its features.
    """

    def __init__(self, model: Path) -> None:
        from marco_model.load import load

        self._classifier = load(model)
        self._both = _in_one_pass(self._classifier)

    def __call__(self, encoded: Sequence[bytes]) -> list[Described | str]:
        """Returns embedding, float32 [d], and scores, float32 [classes], of each image, or the reason why not."""
        if not encoded:
            return []
        try:
            images = self._classifier.images(encoded)
        except InputError as error:
            if len(encoded) == 1:
                return [str(error)]
            # One bad image must not lose the batch.
            return [result for image in encoded for result in self([image])]
        embeddings, scores = self._both(images)
        return list(zip(embeddings.numpy(), scores.numpy(), strict=True))


def _in_one_pass(classifier: Any) -> Callable:
    """Joins the two functions that the model has into one of constants.

    Grappler merges what is computed twice from the same constants, and not what is computed from variables: so the
    network runs once for both.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    logits, embeddings = classifier.logits, classifier.embeddings

    @tf.function(autograph=False)
    def both(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return embeddings(images), tf.nn.softmax(logits(images))

    shape = classifier.images([]).shape
    concrete = both.get_concrete_function(tf.TensorSpec([None, *shape[1:]], tf.float32))
    frozen = convert_variables_to_constants_v2(concrete)
    return lambda images: frozen(tf.constant(images))


_BATCH = 8
_THUMBNAIL_SIDE = 144


class Sampling(NamedTuple):
    """How many images of an imager are measured, of how many a thumbnail is kept, and what the draw depends on."""

    images: int = 1000
    thumbnails: int = 8
    seed: int = 0


class Measured(NamedTuple):
    """The measured rows, how many images each imager had, and (imager, name, reason) of those that failed."""

    table: Table
    seen: dict[str, int]
    failed: list[tuple[str, str, str]]


def measure(
    found: Sequence[Found],
    naming: Naming,
    sources: Any,
    model: str,
    staging: str,
    sampling: Sampling | None = None,
    make_pipeline: Callable[[], beam.Pipeline] | None = None,
) -> Measured:
    """Measures up to `sampling.images` images of each imager; which ones depends on their names and the seed alone.

    `model`: folder or `gs://` URI of a classifier. `staging`: folder or URI that the workers reach; it is removed.
    Raises InputError where the model can't be used.
    """
    sampling = sampling or Sampling()
    pipeline = make_pipeline() if make_pipeline else beam.Pipeline(argv=list(LOCAL_BEAM_ARGS))
    files.delete_tree(staging)
    try:
        with pipeline:
            all_images = (
                pipeline
                | "Found" >> beam.Create(list(found))
                | "Spread" >> beam.Reshuffle()
                | "List" >> beam.FlatMap(images.candidates, naming, sources, sampling.seed)
                | "ByImager" >> beam.WithKeys(lambda candidate: candidate.imager)
            )
            _ = (
                all_images
                | "Count" >> beam.combiners.Count.PerKey()
                | "Line" >> beam.Map(json.dumps)
                | "WriteCounts" >> beam.io.WriteToText(files.join(staging, "seen"), num_shards=1)
            )
            _ = (
                all_images
                | "Sample" >> beam.combiners.Top.SmallestPerKey(sampling.images)
                | "Number" >> beam.FlatMap(_numbered)
                | "ByFile" >> beam.GroupByKey()
                | "Read" >> beam.FlatMap(_read)
                | "Batch" >> beam.BatchElements(min_batch_size=_BATCH, max_batch_size=_BATCH)
                | "Measure" >> beam.ParDo(_Measure(model, sampling.thumbnails))
                | "WriteRows" >> beam.io.WriteToParquet(files.join(staging, "rows"), SCHEMA, num_shards=1)
            )
        return _collected(staging)
    finally:
        files.delete_tree(staging)


def _numbered(group: tuple[str, list[Candidate]]) -> Iterator[tuple[bytes, tuple[int, Candidate]]]:
    """Yields the sample of an imager by file, each with its place in the draw."""
    for place, candidate in enumerate(group[1]):
        yield candidate.path, (place, candidate)


def _read(
    group: tuple[bytes, Iterable[tuple[int, Candidate]]],
) -> Iterator[tuple[int, Candidate, bytes | str]]:
    path, group_candidates = group
    # Beam may hand a candidate over as a plain tuple.
    places = {Candidate(*candidate): place for place, candidate in group_candidates}
    for candidate, data in images.encoded_images(path, list(places)):
        yield places[candidate], candidate, data


class _Measure(beam.DoFn):
    """From batches of encoded images to rows of `SCHEMA`."""

    def __init__(self, model: str, thumbnails: int) -> None:
        self._model = model
        self._thumbnails = thumbnails

    def setup(self) -> None:
        """Opens the classifier once per worker."""
        from components.published_models import on_this_machine

        # A copy of a model in a bucket stays until the worker ends.
        folder = contextlib.ExitStack()
        self._describe = Describer(folder.enter_context(on_this_machine(self._model)))
        atexit.register(folder.close)

    def process(self, batch: list[tuple[int, Candidate, bytes | str]]) -> Iterator[dict[str, Any]]:
        """Measures a batch."""
        rows = [_row(candidate, place, data, self._thumbnails) for place, candidate, data in batch]
        sound = [index for index, row in enumerate(rows) if not row["reason"]]
        described = self._describe([cast(bytes, batch[index][2]) for index in sound])
        for index, result in zip(sound, described, strict=True):
            if isinstance(result, str):
                rows[index] = _failed(batch[index][1], result)
            else:
                rows[index] |= {"embedding": result[0].tolist(), "scores": result[1].tolist()}
        yield from rows


def _row(candidate: Candidate, place: int, data: bytes | str, thumbnails: int) -> dict[str, Any]:
    if isinstance(data, str):
        return _failed(candidate, data)
    try:
        measured = image_statistics(data)
        thumbnail = _thumbnail(data) if place < thumbnails else b""
    except InputError as error:
        return _failed(candidate, str(error))
    return _failed(candidate, "") | {"statistics": measured.tolist(), "thumbnail": thumbnail}


def _failed(candidate: Candidate, reason: str) -> dict[str, Any]:
    empty = {"statistics": [], "embedding": [], "scores": [], "thumbnail": b""}
    return {"imager": candidate.imager, "name": candidate.name, "reason": reason, **empty}


def _thumbnail(data: bytes) -> bytes:
    pixels = middle(decoded(data))
    scale = _THUMBNAIL_SIDE / min(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _collected(staging: str) -> Measured:
    """Reads what the workers wrote."""
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for file in list_files(staging):
        data = read_bytes(file.path)
        if file.name.startswith("rows"):
            rows += pq.read_table(pa.BufferReader(data)).to_pylist()
        else:
            seen.update(json.loads(line) for line in data.splitlines())
    failed = sorted((row["imager"], row["name"], row["reason"]) for row in rows if row["reason"])
    return Measured(from_rows([row for row in rows if not row["reason"]]), seen, failed)
