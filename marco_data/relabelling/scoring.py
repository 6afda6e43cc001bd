"""How probable each record's label is: by the classifier itself, or by what its features tell of the other records."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from marco_data.relabelling.cross_scores import cross_probabilities
from marco_data.relabelling.records import Labelled, OnProblem, labelled_records
from marco_data.shards import File
from marco_model.errors import InputError
from marco_model.labels import key

if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier

Measure = Callable[[Sequence[bytes]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Scored:
    """The records that could be scored, in their order; arrays have a row a record.

    `places`: int32 [n, 2], shard and place in it. `image_ids`: int64 [n]. `splits`: [n]. `labels`: int32 [n], into
    `classes`. `probabilities`: float32 [n, classes].
    """

    classes: tuple[str, ...]
    places: np.ndarray
    image_ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def score_records(
    classifier: LoadedClassifier,
    shards: Sequence[File],
    *,
    folds: int = 0,
    batch_size: int = 8,
    on_problem: OnProblem,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Scored:
    """Scores every record; of the images one batch at a time is held.

    With `folds` the probabilities are `cross_probabilities` of the classifier's embeddings, which wait in a temporary
    file; otherwise the classifier's own, calibrated. `on_bytes` is told how many bytes of images were read. Raises
    `InputError` where nothing can be scored, and, at the first of them, where a label is no class of the classifier.
    """
    measure = classifier.embed if folds else classifier.probabilities
    rows: list[Labelled] = []
    with tempfile.TemporaryFile() as file:
        for record, values in _measured(measure, labelled_records(shards, on_problem), batch_size, on_bytes):
            if isinstance(values, str):
                on_problem(shards[record.shard].name, record.index, values)
                continue
            if not folds:
                _require_class(record.label, classifier)
            rows.append(record._replace(encoded=b""))
            file.write(values.astype(np.float32).tobytes())
        if not rows:
            raise InputError("no record of the shards can be scored; `marco data ingest` says what is wrong with them")
        file.flush()
        values = np.memmap(file, np.float32, "r").reshape(len(rows), -1)
        names = [row.label for row in rows]
        classes, labels = _labels(names, classifier.classes)
        probabilities = (
            cross_probabilities(values, labels, len(classes), folds, [(row.filename, row.image_id) for row in rows])
            if folds
            else np.array(values)
        )
    return Scored(
        classes,
        np.array([(row.shard, row.index) for row in rows], np.int32),
        np.array([row.image_id for row in rows], np.int64),
        np.array([row.split for row in rows]),
        labels,
        probabilities,
    )


def _require_class(label: str, classifier: LoadedClassifier) -> None:
    if key(label) not in map(key, classifier.classes):
        raise InputError(
            f"records are labelled {label!r}, and the classes of {classifier.name} are "
            f"{', '.join(classifier.classes)}; give a --model of these labels, or --folds 5, which learns them"
        )


def _labels(names: Sequence[str], classes: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns `classes`, or those of the names where some are others, and each name's index."""
    found = {key(name): name for name in sorted(set(names))}
    if not found.keys() <= set(map(key, classes)):
        classes = tuple(found.values())
    index = {key(name): number for number, name in enumerate(classes)}
    return classes, np.array([index[key(name)] for name in names], np.int32)


def _measured(
    measure: Measure, records: Iterator[Labelled], batch_size: int, on_bytes: Callable[[int], None]
) -> Iterator[tuple[Labelled, np.ndarray | str]]:
    while batch := list(itertools.islice(records, batch_size)):
        on_bytes(sum(len(record.encoded) for record in batch))
        yield from zip(batch, _values(measure, [record.encoded for record in batch]), strict=True)


def _values(measure: Measure, images: list[bytes]) -> list[np.ndarray | str]:
    """Measures a batch; one that fails is measured image by image, so that an image at fault costs only itself."""
    try:
        return list(measure(images))
    except InputError as error:
        if len(images) == 1:
            return [str(error)]
    values: list[np.ndarray | str] = []
    for image in images:
        values += _values(measure, [image])
    return values
