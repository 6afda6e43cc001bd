"""The pass over the images, in which each unit of shards is read, checked and staged, and the search for duplicates.

A unit writes to its staging folder its sound records by split, its rejected records and a report with a line for each
of those. It yields a row of a few bytes for each sound record: its place, id and digest. Duplicates are found by these
rows, so images are read again only in units that have some.
"""

import collections
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from components.example_gen import checks, files
from components.settings import BY_SHARD, THREE, IngestOptions
from marco_data import contract, shards, tfrecord
from marco_model import store

# Records read ahead of the checks, per thread and in bytes: enough to keep the threads busy, few enough for the memory
# of a worker.
_AHEAD = 4
_AHEAD_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class Shard:
    """An input shard: its number in the order of all, its path, its name in reports, its split.

    The split is empty if it is drawn for each record, of all or of those of the training split.
    """

    number: int
    path: str
    name: str
    split: str


@dataclasses.dataclass(frozen=True)
class Unit:
    """Shards that one worker processes in turn; together they are about the size of one output shard."""

    number: int
    shards: tuple[Shard, ...]


class Place(NamedTuple):
    """Where a sound record came from and where it is staged."""

    shard: int
    record: int
    offset: int
    unit: int
    split: str
    piece: int
    position: int
    suffix_bytes: int
    relabelled: bool


class StagedRecord(NamedTuple):
    """A sound record as the search for duplicates needs it."""

    image_id: int
    digest: bytes
    place: Place


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the quarantine; `offset` is that in the uncompressed shard."""

    shard: str
    number: int
    offset: int
    index: int
    image_id: str
    reason: str
    detail: str

    @property
    def has_record(self) -> bool:
        """Whether the bytes are a record, not a shard's unreadable rest."""
        return self.reason not in tfrecord.REST_REASONS


class AppliedAnswer(NamedTuple):
    """An answer of the overlay and the record it applies to; `split` is empty if the label scheme leaves it out."""

    shard: int
    record: int
    split: str
    image_id: int
    old_class: str
    new_class: str


@dataclasses.dataclass(frozen=True)
class UnitReport:
    """The result of a unit: frames read, records' lengths in each piece by split, entries, shards without a record.

    `left_out`: label → records that the label scheme leaves out. `applied`: the overlay's answers. `record_bytes` and
    `rest_bytes`: of the records read, and of what could not be read as records.
    """

    unit: int
    read: int
    pieces: Mapping[str, Sequence[Sequence[int]]]
    entries: Sequence[Entry]
    empty_shards: Sequence[str]
    left_out: Mapping[str, int]
    applied: Sequence[AppliedAnswer] = ()
    record_bytes: int = 0
    rest_bytes: int = 0


def plan_units(shard_files: Sequence[shards.File], options: IngestOptions) -> list[Unit]:
    """Joins consecutive shards of a split to units of about `shard_bytes`; `InputError` for a name without a split."""
    units: list[Unit] = []
    members: list[Shard] = []
    size = 0
    for number, (file, split) in enumerate(zip(shard_files, _splits(shard_files, options), strict=True)):
        if members and (size + file.size > options.shard_bytes or members[-1].split != split):
            units.append(Unit(len(units), tuple(members)))
            members, size = [], 0
        members.append(Shard(number, file.path, file.name, split))
        size += file.size
    return [*units, Unit(len(units), tuple(members))] if members else units


def _splits(shard_files: Sequence[shards.File], options: IngestOptions) -> list[str]:
    """Returns the split of each shard, empty if it is drawn for each record."""
    if options.split_by != BY_SHARD:
        return [""] * len(shard_files)
    splits = [shards.split_of(file.name) for file in shard_files]
    if shards.EVAL not in splits:  # Of a set of two splits, the one that is not trained on is judged by.
        splits = [shards.EVAL if split == shards.VALIDATION else split for split in splits]
    if options.splits == THREE and shards.VALIDATION not in splits:
        return ["" if split == shards.TRAIN else split for split in splits]
    return splits


def piece_path(staging: str, unit: int, split: str, piece: int) -> str:
    """Returns the path of a unit's sound records of a split, which are in pieces of about `shard_bytes`."""
    return _unit_file(staging, unit, f"{split}-{piece:03d}.tfrecord")


def rejected_path(staging: str, unit: int) -> str:
    """Returns the path of a unit's rejected records."""
    return _unit_file(staging, unit, "rejected.tfrecord")


def rest_path(staging: str, unit: int, shard: int, offset: int) -> str:
    """Returns the path of the unreadable rest of a shard."""
    return _unit_file(staging, unit, f"rest-of-{shard:05d}-from-{offset}.bin")


def _unit_file(staging: str, unit: int, name: str) -> str:
    return f"{staging}/unit-{unit:05d}/{name}"


def write_report(staging: str, report: UnitReport) -> None:
    """Writes a unit's report."""
    path = _unit_file(staging, report.unit, "report.json")
    store.write_bytes(path, json.dumps(dataclasses.asdict(report)).encode())


def read_report(staging: str, unit: int) -> UnitReport:
    """Reads a unit's report."""
    report = json.loads(store.read_bytes(_unit_file(staging, unit, "report.json")))
    entries = [Entry(**entry) for entry in report["entries"]]
    applied = [AppliedAnswer(*answer) for answer in report["applied"]]
    return UnitReport(**{**report, "entries": entries, "applied": applied})


def stage(
    unit: Unit, staging: str, tables: Mapping[str, checks.Tables], options: IngestOptions, pool: ThreadPoolExecutor
) -> Iterator[StagedRecord]:
    """Reads, checks and writes a unit's records; yields the sound ones with their places.

    `tables`: those of each shard, by its path.
    """
    outputs = {split: _Pieces(staging, unit.number, split, options.shard_bytes) for split in shards.SPLITS}
    rejected = files.RecordWriter(rejected_path(staging, unit.number))
    entries: list[Entry] = []
    empty: list[str] = []
    left_out: collections.Counter[str] = collections.Counter()
    applied: list[AppliedAnswer] = []
    read = record_bytes = rest_bytes = 0
    for shard in unit.shards:
        seen = 0
        with store.open_raw(shard.path) as stream:
            for record, verdict in _check_all(tfrecord.read_records(stream), tables[shard.path], options, pool):
                seen += 1
                record_bytes += _size(record)
                split = (shard.split or verdict.split) if isinstance(verdict, checks.Accepted) else ""
                if not isinstance(verdict, checks.Rejected) and verdict.overlay_effect:
                    applied.append(AppliedAnswer(shard.number, record.index, split, *verdict.overlay_effect))
                if isinstance(verdict, checks.Accepted):
                    piece, position = outputs[split].write(verdict.data + verdict.suffix)
                    place = Place(
                        shard.number, record.index, record.offset,
                        unit.number, split, piece, position, len(verdict.suffix), verdict.relabelled,
                    )  # fmt: skip
                    yield StagedRecord(verdict.image_id, verdict.digest, place)
                elif isinstance(verdict, checks.LeftOut):
                    left_out[verdict.label] += 1
                else:
                    entry = Entry(
                        shard.name, shard.number, record.offset, record.index,
                        verdict.image_id, verdict.reason, verdict.detail,
                    )  # fmt: skip
                    entries.append(entry)
                    if isinstance(record, tfrecord.Record):
                        rejected.write_record(record.data)
                    else:
                        rest_bytes += _write_rest(rest_path(staging, unit.number, shard.number, record.offset), record)
        read += seen
        if not seen:
            empty.append(shard.name)
    rejected.close()
    pieces = {split: output.close() for split, output in outputs.items()}
    report = UnitReport(unit.number, read, pieces, entries, empty, dict(left_out), applied, record_bytes, rest_bytes)
    write_report(staging, report)


def _check_all(
    records: Iterable[tfrecord.Record | tfrecord.Rest],
    tables: checks.Tables,
    options: IngestOptions,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[tfrecord.Record | tfrecord.Rest, checks.Verdict]]:
    """Yields records and the rest with their verdicts, in order; records are checked in `pool`, a few ahead."""

    def check(record: tfrecord.Record | tfrecord.Rest) -> checks.Verdict:
        if isinstance(record, tfrecord.Rest):
            return checks.Rejected("", record.reason, record.detail)
        if not record.intact:
            return checks.Rejected("", contract.BAD_CHECKSUM, f"a record of {len(record.data)} bytes")
        return checks.check_record(record.data, tables, options)

    waiting: collections.deque[tuple[tfrecord.Record | tfrecord.Rest, Future[checks.Verdict]]] = collections.deque()
    waiting_bytes = 0
    for record in records:
        # A rest is always the last; its bytes come from the stream, so they must be read before anything else.
        waiting.append((record, pool.submit(check, record)))
        waiting_bytes += _size(record)
        while waiting and (len(waiting) > _AHEAD * options.threads or waiting_bytes > _AHEAD_BYTES):
            first, verdict = waiting.popleft()
            waiting_bytes -= _size(first)
            yield first, verdict.result()
    for record, verdict in waiting:
        yield record, verdict.result()


def _size(record: tfrecord.Record | tfrecord.Rest) -> int:
    return len(record.data) if isinstance(record, tfrecord.Record) else 0


def _write_rest(path: str, rest: tfrecord.Rest) -> int:
    """Writes the bytes of a rest; returns how many there are."""
    writer, size = files.Writer(path), 0
    for chunk in rest.chunks:
        writer.write(chunk)
        size += len(chunk)
    writer.close()
    return size


class _Pieces:
    """Writes the sound records of a split, in pieces of about `limit` bytes."""

    def __init__(self, staging: str, unit: int, split: str, limit: int) -> None:
        self._staging, self._unit, self._split, self._limit = staging, unit, split, limit
        self._writer: files.RecordWriter | None = None
        self._lengths: list[list[int]] = []

    def write(self, data: bytes) -> tuple[int, int]:
        """Writes a record; returns its piece and its position there."""
        if self._writer is None:
            self._writer = files.RecordWriter(piece_path(self._staging, self._unit, self._split, len(self._lengths)))
            self._lengths.append(self._writer.lengths)
        place = len(self._lengths) - 1, len(self._lengths[-1])
        self._writer.write_record(data)
        if self._writer.record_bytes >= self._limit:
            self._writer.close()
            self._writer = None
        return place

    def close(self) -> list[list[int]]:
        """Closes the last piece; returns the lengths of the records in each."""
        if self._writer is not None:
            self._writer.close()
        return self._lengths


class Duplicate(NamedTuple):
    """A staged record that is removed because another one is kept."""

    place: Place
    image_id: int
    reason: str
    detail: str


# Of two reasons for one record the first of these is reported.
_RANK = (contract.TRAIN_AND_EVAL, contract.DUPLICATE_ID, contract.ID_OF_OTHER_IMAGE, contract.DUPLICATE_CONTENT)


def duplicate_keys(record: StagedRecord) -> Iterator[tuple[bytes, StagedRecord]]:
    """Yields the two keys by which a record is compared with others."""
    yield b"id " + str(record.image_id).encode(), record
    yield b"digest " + record.digest, record


def find_duplicates(key: bytes, records: Iterable[StagedRecord], shard_names: Sequence[str]) -> Iterator[Duplicate]:
    """Yields all but one of the records with the same key.

    The evaluation split's copy is kept rather than another, which protects the test, and the validation split's rather
    than the training split's; then the first in the order of shards and records. A record that is removed by one key is
    out even if it would be kept by the other. `records` may be iterated more than once.
    """
    kept = min(
        records,
        key=lambda record: (-shards.SPLITS.index(record.place.split), record.place.shard, record.place.record),
    )
    for record in records:
        if record.place == kept.place:
            continue
        if record.digest == kept.digest and record.place.split != kept.place.split == shards.EVAL:
            reason = contract.TRAIN_AND_EVAL
        elif record.digest != kept.digest:
            reason = contract.ID_OF_OTHER_IMAGE
        else:
            reason = contract.DUPLICATE_ID if key.startswith(b"id ") else contract.DUPLICATE_CONTENT
        place = kept.place
        detail = f"kept: image {kept.image_id}, record {place.record} of {shard_names[place.shard]} ({place.split})"
        yield Duplicate(record.place, record.image_id, reason, detail)


def merge_reasons(duplicates: Iterable[Duplicate]) -> list[Duplicate]:
    """Returns each record once, with the first of its reasons by rank, in the order of shards and records."""
    best: dict[Place, Duplicate] = {}
    for duplicate in duplicates:
        candidates = (best.get(duplicate.place, duplicate), duplicate)
        best[duplicate.place] = min(candidates, key=lambda each: (_RANK.index(each.reason), each.detail))
    return [best[place] for place in sorted(best)]
