"""How probable each record's label is, by a classifier itself or by models fitted to its features."""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import marco_model
from marco_data import contract, overlay, places, progress, shards, tfrecord
from marco_model import errors, labels, store

ALL = "all"
"""The split of shards whose names have none: they are ranked together."""

FITTED_AT_MOST = 20_000
"""Images that the model of one fold is fitted to; more change little and cost time in proportion."""

REGULARIZATION = 0.01
"""scikit-learn's C on standardized features: strong, since there are many features and some labels are wrong."""

REPEATS = 3
"""How often folds are drawn; the mean of the probabilities finds more wrong labels than a single draw."""

_BLOCK_IMAGES = 4096

OnProblem = Callable[[str, int, str], None]
"""Receives the shard's name, the record's position and the reason why it cannot be used."""


class LabelledRecord(NamedTuple):
    """A record: number of its shard, position there, split (`train`, `eval` or `all`), id, plate, label and image.

    `plate`: the one that the record or else the name of its file states; it may be empty.
    """

    shard: int
    position: int
    split: str
    image_id: int
    plate: str
    label: str
    encoded: bytes


@dataclasses.dataclass(frozen=True)
class ScoredRecords:
    """The records that could be scored, in their order; arrays have one row per record.

    `places`: int32 [n, 2], shard and position. `image_ids`: int64 [n]. `splits`: str [n]. `labels`: int32 [n], indices
    of `classes`. `probabilities`: float32 [n, classes].
    """

    classes: tuple[str, ...]
    places: np.ndarray
    image_ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def score_records(
    classifier: "marco_model.LoadedClassifier",
    files: Sequence[shards.File],
    *,
    folds: int = 0,
    batch_size: int = 8,
    on_problem: OnProblem,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> ScoredRecords:
    """Scores every record of the shards `files`; only one batch of images is in memory.

    With `folds` the probabilities are `cross_probabilities` of the classifier's embeddings, which wait in a temporary
    file; otherwise they are the classifier's own, calibrated. `on_bytes` receives the bytes of images read. Raises
    `InputError` if no record can be scored, and at once for a label that the classifier does not know.
    """
    measure = classifier.embed if folds else classifier.probabilities
    rows: list[LabelledRecord] = []
    with tempfile.TemporaryFile() as file:
        records = labelled_records(files, on_problem)
        while batch := list(itertools.islice(records, batch_size)):
            on_bytes(sum(len(record.encoded) for record in batch))
            results = errors.result_or_reason(measure, [record.encoded for record in batch])
            for record, values in zip(batch, results, strict=True):
                if isinstance(values, str):
                    on_problem(files[record.shard].name, record.position, values)
                    continue
                if not folds:
                    _require_class(record.label, classifier)
                rows.append(record._replace(encoded=b""))
                file.write(values.astype(np.float32).tobytes())
        if not rows:
            raise errors.InputError(
                "no record of the shards can be scored; `marco data ingest` says what is wrong with them"
            )
        file.flush()
        measured = np.memmap(file, np.float32, "r").reshape(len(rows), -1)
        classes, numbers = _label_numbers([row.label for row in rows], classifier.classes)
        probabilities = (
            cross_probabilities(measured, numbers, len(classes), folds, [(row.plate, row.image_id) for row in rows])
            if folds
            else np.array(measured)
        )
    return ScoredRecords(
        classes,
        np.array([(row.shard, row.position) for row in rows], np.int32),
        np.array([row.image_id for row in rows], np.int64),
        np.array([row.split for row in rows]),
        numbers,
        probabilities,
    )


def _require_class(label: str, classifier: "marco_model.LoadedClassifier") -> None:
    if labels.key(label) not in map(labels.key, classifier.classes):
        raise errors.InputError(
            f"records are labelled {label!r}, and the classes of {classifier.name} are "
            f"{', '.join(classifier.classes)}; give a --model of these labels, or --folds 5, which learns them"
        )


def _label_numbers(names: Sequence[str], classes: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the classes and each name's index: `classes`, or the names themselves if these do not include all."""
    by_key = {labels.key(name): name for name in sorted(set(names))}
    if not by_key.keys() <= set(map(labels.key, classes)):
        classes = tuple(by_key.values())
    index = {labels.key(name): number for number, name in enumerate(classes)}
    return classes, np.array([index[labels.key(name)] for name in names], np.int32)


def labelled_records(files: Sequence[shards.File], on_problem: OnProblem) -> Iterator[LabelledRecord]:
    """Yields each record of the shards in order; a record that cannot be used is reported to `on_problem`."""
    for number, shard in enumerate(files):
        split = shards.split_of(shard.path, default=ALL)
        with store.open_raw(shard.path) as file:
            for record in tfrecord.read_records(file):
                try:
                    yield LabelledRecord(number, record.index, split, *_record_values(record))
                except errors.InputError as error:
                    on_problem(shard.name, record.index, str(error))


def records_of_images(files: Sequence[shards.File], digests: Collection[str]) -> dict[str, list[LabelledRecord]]:
    """Returns the records whose images have one of these `overlay.image_digest`s, by it, without the images.

    An image may be in several records. All shards are read; records that cannot be used are ignored.
    """
    records: dict[str, list[LabelledRecord]] = {}
    with progress.progress("looking for the images", len(files), unit="shards") as advance:
        for file in files:
            for record in labelled_records([file], lambda *problem: None):
                digest = overlay.image_digest(record.encoded)
                if digest in digests:
                    records.setdefault(digest, []).append(record._replace(encoded=b""))
            advance(1)
    return records


def _record_values(record: tfrecord.Record | tfrecord.Rest) -> tuple[int, str, str, bytes]:
    if isinstance(record, tfrecord.Rest):
        raise errors.InputError(record.detail)
    if not record.intact:
        raise errors.InputError("its checksum does not match")
    features = contract.parse_example(record.data).features.feature
    values = []
    for name in (contract.IMAGE_ID, contract.FILENAME, contract.LABEL_TEXT, contract.ENCODED):
        kind, entries = contract.feature_values(features[name]) if name in features else ("", ())
        if len(entries) != 1 or kind != ("int64_list" if name == contract.IMAGE_ID else "bytes_list"):
            raise errors.InputError(f"{name} is missing or not one value")
        values.append(entries[0])
    image_id, filename, label, encoded = values
    plate = contract.plate_of(features) or places.place_of(filename.decode("utf-8", "replace")).plate
    return image_id, plate, label.decode("utf-8", "replace"), encoded


def encoded_images(files: Sequence[shards.File], places: Mapping[tuple[int, int], Any]) -> Iterator[tuple[Any, bytes]]:
    """Yields the value of each of `places`, by (shard, position), with the encoded image there; reads a shard once."""
    by_shard: dict[int, dict[int, Any]] = {}
    for (number, position), value in places.items():
        by_shard.setdefault(number, {})[position] = value
    for number, by_index in sorted(by_shard.items()):
        with store.open_raw(files[number].path) as file:
            for record in tfrecord.read_records(file):
                if record.index in by_index and isinstance(record, tfrecord.Record):
                    feature = contract.parse_example(record.data).features.feature
                    yield by_index.pop(record.index), feature[contract.ENCODED].bytes_list.value[0]
                if not by_index:
                    break


def check_folds(folds: int) -> None:
    """Raises `InputError` for fewer than two folds."""
    if folds < 2:
        raise errors.InputError(f"--folds is {folds}; give 2 or more, or 0 for the model's own scores")


def cross_probabilities(
    embeddings: np.ndarray, labels: np.ndarray, classes: int, folds: int, plates: Sequence[tuple[str, int]]
) -> np.ndarray:
    """Returns probabilities, float32 [n, classes], each image's by a model that was fitted without its fold.

    `embeddings`: float32 [n, features]. `labels`: int [n]. `plates`: plate and id of each, which decide its fold
    (`fold_of`). Raises `InputError` for fewer than two folds, or if the other folds have images of only one class.
    """
    check_folds(folds)
    probabilities = np.zeros((len(labels), classes), np.float32)
    for repeat in range(REPEATS):
        fold = fold_of(plates, folds, repeat)
        for number in range(folds):
            held_out, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            if len(np.unique(labels[others])) < 2:
                raise errors.InputError(
                    f"{len(labels)} images are too few for {folds} folds; give fewer --folds, or more images"
                )
            if len(others) > FITTED_AT_MOST:
                others = np.sort(np.random.default_rng(0).choice(others, FITTED_AT_MOST, replace=False))
            _add_probabilities(probabilities, embeddings, labels, held_out, others)
    return probabilities / REPEATS


def _add_probabilities(
    probabilities: np.ndarray, embeddings: np.ndarray, labels: np.ndarray, held_out: np.ndarray, fitted: np.ndarray
) -> None:
    """Adds to the rows `held_out` the probabilities by a model fitted to the rows `fitted`."""
    from sklearn import linear_model, pipeline, preprocessing

    regression = linear_model.LogisticRegression(C=REGULARIZATION, max_iter=1000)
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), regression)
    model.fit(embeddings[fitted], labels[fitted])
    for start in range(0, len(held_out), _BLOCK_IMAGES):
        rows = held_out[start : start + _BLOCK_IMAGES]
        probabilities[np.ix_(rows, model.classes_)] += model.predict_proba(embeddings[rows])


def fold_of(plates: Sequence[tuple[str, int]], folds: int, repeat: int = 0) -> np.ndarray:
    """Returns each image's fold, int [n], by a hash of its plate or id that differs for each `repeat`.

    Images of a plate, which may show one drop several times under the same wrong label, share a fold if there
    are at least four times as many plates as folds. A plate may be empty.
    """
    by_plate = len({plate for plate, _ in plates if plate}) >= 4 * folds
    keys = [
        f"fold {repeat} plate {plate}" if by_plate and plate else f"fold {repeat} image {image_id}"
        for plate, image_id in plates
    ]
    return np.array([int(shards.hashed_draw(key) * folds) for key in keys])
