"""Reading records of MARCO shards or of ExampleGen's output for what relabelling needs, one at a time."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from marco_data import contract
from marco_data.files import open_raw
from marco_data.institutions import UNKNOWN
from marco_data.shards import File, split_of
from marco_data.tfrecord import Record, read_records
from marco_model.errors import InputError

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
                        yield Labelled(number, found.index, split, *_values(found.data))
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


def _values(data: bytes) -> tuple[int, str, str, bytes]:
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
