"""How probable each record's label is: by the classifier itself, or by what its features tell of the other records."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from marco_data import contract
from marco_data.image_files import drop_place
from marco_data.name_tables import UNKNOWN
from marco_data.shards import File, hashed_draw, split_of
from marco_data.tfrecord import Record, read_records
from marco_model.errors import InputError
from marco_model.labels import key
from marco_model.store import open_raw

ALL = "all"


class Labelled(NamedTuple):
    """One record: its shard, by number, its place in it, split (`train`, `eval`, or `all`), id, name, class, image."""

    shard: int
    index: int
    split: str
    image_id: int
    filename: str
    label: str
    encoded: bytes


OnProblem = Callable[[str, int, str], None]
"""Told the shard's name, the record's place in it and why it cannot be used."""


def labelled_records(shards: Sequence[File], on_problem: OnProblem) -> Iterator[Labelled]:
    """Yields each record of `shards` in order; one that cannot be used is told to `on_problem`."""
    for number, shard in enumerate(shards):
        split = _split(shard)
        with open_raw(shard.path) as file:
            for found in read_records(file):
                problem = _unread(found)
                if not problem:
                    try:
                        yield Labelled(number, found.index, split, *_record_values(found.data))
                        continue
                    except InputError as error:
                        problem = str(error)
                on_problem(shard.name, found.index, problem)


def encoded_images(shards: Sequence[File], places: Mapping[tuple[int, int], Any]) -> Iterator[tuple[Any, bytes]]:
    """Yields what `places` holds for a (shard, index) with the encoded image there; each shard is read once at most."""
    wanted: dict[int, dict[int, Any]] = collections.defaultdict(dict)
    for (number, index), held in places.items():
        wanted[number][index] = held
    for number, by_index in sorted(wanted.items()):
        with open_raw(shards[number].path) as file:
            for found in read_records(file):
                if found.index in by_index and isinstance(found, Record):
                    feature = contract.parse_example(found.data).features.feature
                    yield by_index.pop(found.index), feature[contract.ENCODED].bytes_list.value[0]
                if not by_index:
                    break


def _split(shard: File) -> str:
    """By the shard's name; one that tells none is ranked with all of its kind."""
    try:
        return split_of(shard.path)
    except InputError:
        return ALL


def _unread(found: object) -> str:
    if not isinstance(found, Record):
        return str(getattr(found, "detail", UNKNOWN))
    return "" if found.intact else "its checksum does not fit"


def _record_values(data: bytes) -> tuple[int, str, str, bytes]:
    feature = contract.parse_example(data).features.feature
    kinds = {
        contract.IMAGE_ID: "int64_list",
        contract.FILENAME: "bytes_list",
        contract.LABEL_TEXT: "bytes_list",
        contract.ENCODED: "bytes_list",
    }
    values = []
    for name, kind in kinds.items():
        held = getattr(feature[name], kind).value if name in feature else ()
        if len(held) != 1:
            raise InputError(f"{name} is missing or not one value")
        values.append(held[0])
    image_id, filename, label, encoded = values
    return image_id, filename.decode("utf-8", "replace"), label.decode("utf-8", "replace"), encoded


FITTED_AT_MOST = 20_000
"""Images that one fold's model is fitted on; more change little and cost time in proportion."""
REGULARIZATION = 0.01
"""scikit-learn's C on standardized features: strong, since features are many and some labels wrong."""
REPEATS = 3
"""How often folds are drawn anew; the mean of the probabilities finds more wrong labels than one draw does."""
_IMAGES_A_BLOCK = 4096


def check_folds(folds: int) -> None:
    """Raises `InputError` for fewer than two folds."""
    if folds < 2:
        raise InputError(f"--folds is {folds}; give 2 or more, or 0 for the model's own scores")


def cross_probabilities(
    embeddings: np.ndarray, labels: np.ndarray, classes: int, folds: int, names: Sequence[tuple[str, int]]
) -> np.ndarray:
    """Returns probabilities, float32 [n, classes], each image's by a model that was fitted without its fold.

    `embeddings`: float32 [n, features]. `labels`: int [n]. `names`: file name and id of each, which decide its fold
    (`fold_of`). Raises `InputError` for fewer than two folds, or where a fold leaves images of one class alone.
    """
    check_folds(folds)
    found = np.zeros((len(labels), classes), np.float32)
    for repeat in range(REPEATS):
        fold = fold_of(names, folds, repeat)
        for number in range(folds):
            held_out, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            if len(np.unique(labels[others])) < 2:
                raise InputError(
                    f"{len(labels)} images are too few for {folds} folds; give fewer --folds, or more images"
                )
            _add_probabilities(found, embeddings, labels, held_out, _some_of(others))
    return found / REPEATS


def _add_probabilities(
    found: np.ndarray, embeddings: np.ndarray, labels: np.ndarray, held_out: np.ndarray, fitted_on: np.ndarray
) -> None:
    """Adds to the rows `held_out` of `found` what a model says of them that was fitted on other rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARIZATION, max_iter=1000))
    model.fit(embeddings[fitted_on], labels[fitted_on])
    for start in range(0, len(held_out), _IMAGES_A_BLOCK):
        rows = held_out[start : start + _IMAGES_A_BLOCK]
        found[np.ix_(rows, model.classes_)] += model.predict_proba(embeddings[rows])


def fold_of(names: Sequence[tuple[str, int]], folds: int, repeat: int = 0) -> np.ndarray:
    """Returns each image's fold, int [n], drawn by a hash of its plate, or of its id, anew for each `repeat`.

    Images of a plate, which may show one drop several times under one wrong label, share a fold where file names tell
    plates and these are four times as many as folds.
    """
    plates = [drop_place(filename).plate for filename, _ in names]
    by_plate = len({plate for plate in plates if plate}) >= 4 * folds
    keys = [
        f"fold {repeat} plate {plate}" if by_plate and plate else f"fold {repeat} image {image_id}"
        for plate, (_, image_id) in zip(plates, names, strict=True)
    ]
    return np.array([int(hashed_draw(key) * folds) for key in keys])


def _some_of(rows: np.ndarray) -> np.ndarray:
    if len(rows) <= FITTED_AT_MOST:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, FITTED_AT_MOST, replace=False))


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
