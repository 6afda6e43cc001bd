"""TFRecord files of examples: where each record begins, and what a training reads of it beside image and class.

The index of where records begin lets any of them be read by itself. The files are not compressed: JPEG and PNG do not
get smaller, and a record of a compressed file cannot be reached without all before it. What writes examples writes the
index beside them, `index/Split-train.npz` for the files of `Split-train`; other files are walked through from length to
length once.

A frame is a length (uint64, little-endian), its checksum (4 bytes), the data and its checksum (4 bytes): TensorFlow,
`tensorflow/core/lib/io/record_writer.h`.

The targets beside the class are a record's source and raw label (docs/beyond-the-paper.md): `find_targets` looks
through the training records for the names and numbers that occur; `Targets` numbers them.
"""

import dataclasses
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from marco_model import errors, recipe as recipes, store

_HEADER_BYTES, FRAME_BYTES = 12, 16

RAW_LABEL = "image/class/raw"
"""The feature of a record that holds its raw label, a number."""

UNKNOWN = -1
"""The number of a source or raw label that is not known."""

_UNKNOWN_NAMES = ("", "unknown")
"""How records and tables name what is not known (`marco_data.name_tables.UNKNOWN`)."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """The targets of a training beside the class; false if there are none.

    `attribute`: the feature that names a record's source. `sources`: their names, in the order of the head's outputs.
    `unlabelled`: those whose labels are hidden from the training. `raw_labels`: names by number, in the order of the
    head's outputs.
    """

    attribute: str = ""
    sources: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    raw_labels: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.sources or self.raw_labels)

    def features(self) -> dict[str, Any]:
        """Returns how the features of the targets are parsed: an empty text or `UNKNOWN` where a record has none."""
        import tensorflow as tf

        sources = {self.attribute: tf.io.FixedLenFeature([], tf.string, "")} if self.sources else {}
        raw = {RAW_LABEL: tf.io.FixedLenFeature([], tf.int64, UNKNOWN)} if self.raw_labels else {}
        return {**sources, **raw}


NO_TARGETS = Targets()


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """The records of `files`, file after file.

    `file`: int64 [records], the number of the file. `offset`: int64 [records], where the frame begins. `length`: int64
    [records], bytes of the data. `targets`: what is read of them beside image and class.
    """

    files: tuple[str, ...]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    targets: Targets = NO_TARGETS

    def __len__(self) -> int:
        return len(self.offset)

    def select(self, chosen: np.ndarray) -> "RecordIndex":
        """Returns the index of some of the records, in their order; `chosen`: bool [records]."""
        columns = {name: getattr(self, name)[chosen] for name in ("file", "offset", "length")}
        return dataclasses.replace(self, **columns)


def index_path(folder: str) -> str:
    """Returns the path of the index of the files in `folder`, such as `…/Split-train`."""
    parent, _, name = folder.rstrip("/").rpartition("/")
    return f"{parent}/index/{name}.npz"


def write_index(folder: str, lengths: Mapping[str, Sequence[int]]) -> None:
    """Writes the index of the files in `folder`; `lengths`: bytes of the data of each record, by a file's base name."""
    arrays = {name: np.asarray(values, np.int64) for name, values in lengths.items()}
    store.write_bytes(index_path(folder), store.npz(arrays))


def read_index(files: Sequence[str]) -> RecordIndex:
    """Returns the index of the files, in the order of their names.

    Raises `InputError` if a file is missing, is compressed or is not a sequence of TFRecord frames.
    """
    files = sorted(files)
    known: dict[str, np.ndarray] = {}
    for folder in sorted({file.rpartition("/")[0] for file in files}):
        if store.exists(index_path(folder)):
            damaged = f"{index_path(folder)} is damaged ({{}}); remove it, and the files are read through"
            with errors.translated(errors.InputError, damaged, Exception):
                arrays = store.arrays(store.read_bytes(index_path(folder)))
                known |= {f"{folder}/{name}": lengths for name, lengths in arrays.items()}
    lengths = [known[file] if file in known else _walk(file) for file in files]
    ends = [np.cumsum(values + FRAME_BYTES) for values in lengths]
    return RecordIndex(
        files=tuple(files),
        file=np.repeat(np.arange(len(files), dtype=np.int64), [len(values) for values in lengths]),
        offset=np.concatenate([end - values - FRAME_BYTES for end, values in zip(ends, lengths, strict=True)]),
        length=np.concatenate(lengths),
    )


def _walk(file: str) -> np.ndarray:
    """Returns the length of each record of a file, int64 [records], of which only the lengths are read."""
    remedy = "give TFRecord files that are not compressed, as ExampleGen writes them"
    lengths: list[int] = []
    with errors.translated(errors.InputError, f"{file} cannot be read ({{}}); {remedy}", OSError):
        stream = store.open_raw(file)
    with stream:
        size = stream.seek(0, os.SEEK_END)
        place = 0
        while place < size:
            stream.seek(place)
            header = stream.read(_HEADER_BYTES)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER_BYTES else size
            place += length + FRAME_BYTES
            if place > size:
                raise errors.InputError(f"{file} is not a TFRecord file from record {len(lengths)} on; {remedy}")
            lengths.append(length)
    return np.asarray(lengths, np.int64)


def find_targets(recipe: recipes.Recipe, files: Sequence[str], raw_names: Mapping[int, str] | None = None) -> Targets:
    """Returns the targets that a recipe asks for, as they occur in TFRecord files of training examples.

    `raw_names`: names of raw labels by number. The files are read through, unless the recipe asks for nothing. What is
    named `unknown` is left out, and so are raw labels that only records of `recipe.unlabelled` have.

    Raises `InputError` if there is nothing to tell apart, or if an unlabelled source does not occur.
    """
    by_source = bool(recipe.adversarial_weight or recipe.unlabelled)
    if not (by_source or recipe.raw_weight):
        return NO_TARGETS
    names = raw_names or {}
    sources, numbers = set[str](), set[int]()
    for of_batch, raw in _values(files, recipe.sources):
        texts = [name.decode("utf-8", "replace") for name in of_batch]
        sources |= set(texts)
        numbers |= {int(n) for n, text in zip(raw, texts, strict=True) if text not in recipe.unlabelled}
    known = tuple(sorted(sources.difference(_UNKNOWN_NAMES)))
    raw_labels = {n: names.get(n, f"raw label {n}") for n in sorted(numbers) if n > UNKNOWN}
    raw_labels = {n: name for n, name in raw_labels.items() if name.casefold() not in _UNKNOWN_NAMES}
    _check(recipe, known, raw_labels)
    return Targets(
        attribute=recipe.sources if by_source else "",
        sources=known if by_source else (),
        unlabelled=recipe.unlabelled,
        raw_labels=raw_labels if recipe.raw_weight else {},
    )


def check_validation(recipe: recipes.Recipe, files: Sequence[str]) -> None:
    """Raises `InputError` if the recipe hides the labels of all records of a validation split, TFRecord files."""
    if not recipe.unlabelled:
        return
    names = {name for of_batch, _ in _values(files, recipe.sources) for name in of_batch}
    found = sorted(name.decode("utf-8", "replace") for name in names)
    if found and set(found) <= set(recipe.unlabelled):
        raise errors.InputError(
            f"recipe.unlabelled hides all labels of the validation split, whose images are of {', '.join(found)}; "
            f"raise data.validation_share, or hide fewer by {recipe.sources}"
        )


def _values(files: Sequence[str], attribute: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the sources (bytes) and the raw labels (int64) of batches of records, defaults where there are none."""
    from marco_model import preprocessing

    features = Targets(attribute, ("any",), raw_labels={0: "any"}).features()
    for batch in preprocessing.parsed_records(sorted(files), features):
        yield batch[attribute], batch[RAW_LABEL]


def _check(recipe: recipes.Recipe, sources: Sequence[str], raw_labels: Mapping[int, str]) -> None:
    shown = ", ".join(sources) or "none"
    missing = [name for name in recipe.unlabelled if name not in sources]
    if missing:
        raise errors.InputError(
            f"recipe.unlabelled has {missing[0]!r}, of which there is no training image; by {recipe.sources} there are "
            f"{shown}"
        )
    if recipe.unlabelled and set(sources) <= set(recipe.unlabelled):
        raise errors.InputError(f"recipe.unlabelled names every {recipe.sources}, {shown}; leave one with its labels")
    if recipe.adversarial_weight and len(sources) < 2:
        raise errors.InputError(
            f"recipe.adversarial_weight needs training images of two sources or more; by {recipe.sources} there are "
            f"{shown}: set it to 0, or recipe.sources to what tells the images apart"
        )
    if recipe.raw_weight and len(raw_labels) < 2:
        raise errors.InputError(
            f"recipe.raw_weight needs two raw labels or more; the training images have {list(raw_labels.values())}: "
            "set it to 0, or import the images with raw labels (docs/labels.md)"
        )
