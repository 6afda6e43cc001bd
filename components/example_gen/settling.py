"""Taking the duplicates of a unit out of what it staged; nothing is decoded again."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator, Sequence

from components.example_gen import files
from components.example_gen.duplicates import Loser
from components.example_gen.relabelling import as_given
from components.example_gen.staging import (
    Entry,
    Place,
    UnitReport,
    piece_path,
    read_report,
    rejected_path,
    write_report,
)
from marco_data.tfrecord import Record, read_records


def settle(staging: str, unit: int, losing: Sequence[Loser], shard_names: Sequence[str]) -> None:
    """Rewrites a unit's pieces without `losing` and adds these to its rejected records, in the order of the input.

    A second attempt finds the first one's report and does nothing: the report is written last.
    """
    report = read_report(staging, unit)
    places = {loser.place: loser for loser in losing}
    entries = [_entry(loser, shard_names) for loser in losing]
    known = {(entry.number, entry.index) for entry in report.entries}
    if known.issuperset((entry.number, entry.index) for entry in entries):
        return
    pieces = {split: list(counts) for split, counts in report.pieces.items()}
    streams = [_rejected(staging, report)]
    writers: list[tuple[files.RecordWriter, str, int]] = []
    for split, piece in sorted({(place.split, place.piece) for place in places}):
        writer = files.RecordWriter(settled_path(staging, unit, split, piece))
        writers.append((writer, split, piece))
        held = {place.position: place for place in places if (place.split, place.piece) == (split, piece)}
        streams.append(_parted(piece_path(staging, unit, split, piece), held, writer))
    rejected = files.RecordWriter(settled_rejected_path(staging, unit))
    for _, data in heapq.merge(*streams, key=lambda pair: pair[0]):
        rejected.write_record(data)
    rejected.close()
    for writer, split, piece in writers:
        writer.close()
        pieces[split][piece] = writer.records
    merged = sorted([*report.entries, *entries], key=lambda entry: (entry.number, entry.index))
    lost = {(entry.number, entry.index) for entry in entries}
    applied = [one for one in report.applied if (one.number, one.index) not in lost]
    write_report(staging, dataclasses.replace(report, pieces=pieces, entries=merged, applied=applied))


def settled_path(staging: str, unit: int, split: str, piece: int) -> str:
    """Where a piece without its duplicates lies; absent where it had none."""
    return piece_path(staging, unit, split, piece) + ".settled"


def settled_rejected_path(staging: str, unit: int) -> str:
    """Where the rejected records with the duplicates among them lie; absent where there are none."""
    return rejected_path(staging, unit) + ".settled"


def _entry(loser: Loser, shard_names: Sequence[str]) -> Entry:
    place = loser.place
    name = shard_names[place.shard]
    return Entry(name, place.shard, place.offset, place.record, str(loser.image_id), loser.reason, loser.detail)


def _rejected(staging: str, report: UnitReport) -> Iterator[tuple[tuple[int, int], bytes]]:
    with files.open_raw(rejected_path(staging, report.unit)) as stream:
        entries = (entry for entry in report.entries if entry.has_record)
        for entry, record in zip(entries, read_records(stream), strict=True):
            yield (entry.number, entry.index), _whole(record).data


def _parted(path: str, losing: dict[int, Place], writer: files.RecordWriter) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Copies a piece to `writer` but for the losing positions, which it yields as they were read from the input.

    Of those that were given another class the features are as they were, in an order of their own.
    """
    with files.open_raw(path) as stream:
        for found in read_records(stream):
            record = _whole(found)
            place = losing.get(record.index)
            if place is None:
                writer.write_record(record.data)
            else:
                data = record.data[: len(record.data) - place.suffix_bytes]
                yield (place.shard, place.record), as_given(data) if place.relabelled else data


def _whole(found: object) -> Record:
    if not isinstance(found, Record) or not found.intact:
        raise OSError("a staged file is damaged: the storage lost what was just written")
    return found
