"""The one pass over the images: each unit of shards is read, checked and staged.

A unit writes, below its staging folder, its sound records by split, its rejected records and one line about each of
those. What it hands on are rows of a few bytes: where each sound record lies, its id and its digest. Duplicates are
found from these, so that no image is read again but those of units that have some.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from components.example_gen import files
from components.example_gen.checks import Accepted, LeftOut, Names, Rejected, Verdict, check_record
from components.settings import BY_SHARD, IngestOptions
from marco_data import contract, tfrecord
from marco_data.shards import EVAL, SPLITS, File, split_of
from marco_data.tfrecord import Record, Rest, read_records
from marco_model import store

# Records read ahead of the checks, per thread: enough to keep the threads busy, few enough for the memory of a worker.
_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class Shard:
    """One input shard: its place in the order of all, where it is, its name in reports, its split or nothing."""

    number: int
    path: str
    name: str
    split: str


@dataclasses.dataclass(frozen=True)
class Unit:
    """Shards that one worker handles in turn; together they make about one output shard."""

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


class Staged(NamedTuple):
    """A sound record as the search for duplicates sees it."""

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
        """Tells whether the bytes are a record, rather than a shard's unreadable rest."""
        return self.reason not in tfrecord.REST_REASONS


class Applied(NamedTuple):
    """A record that the overlay names, and where it was read; `split` is empty if the label scheme leaves it out."""

    number: int
    index: int
    split: str
    image_id: int
    given: str
    became: str


@dataclasses.dataclass(frozen=True)
class UnitReport:
    """What became of a unit: frames read, records staged in each piece by split, entries, shards without a record.

    `left_out`: label → records that the label scheme leaves out. `applied`: what the overlay did.
    """

    unit: int
    read: int
    pieces: Mapping[str, Sequence[int]]
    entries: Sequence[Entry]
    empty_shards: Sequence[str]
    left_out: Mapping[str, int]
    applied: Sequence[Applied] = ()


def plan_units(shards: Sequence[File], options: IngestOptions) -> list[Unit]:
    """Joins consecutive shards of one split to units of about `shard_bytes`; `InputError` where a name has no split."""
    units: list[Unit] = []
    taken: list[Shard] = []
    size = 0
    for number, file in enumerate(shards):
        split = split_of(file.name) if options.split_by == BY_SHARD else ""
        if taken and (size + file.size > options.shard_bytes or taken[-1].split != split):
            units.append(Unit(len(units), tuple(taken)))
            taken, size = [], 0
        taken.append(Shard(number, file.path, file.name, split))
        size += file.size
    return [*units, Unit(len(units), tuple(taken))] if taken else units


def unit_folder(staging: str, unit: int) -> str:
    """The staging folder of a unit."""
    return files.join(staging, f"unit-{unit:05d}")


def piece_path(staging: str, unit: int, split: str, piece: int) -> str:
    """Where a unit stages its sound records of a split, in pieces of about `shard_bytes`."""
    return files.join(unit_folder(staging, unit), f"{split}-{piece:03d}.gz")


def rejected_path(staging: str, unit: int) -> str:
    """Where a unit stages its rejected records."""
    return files.join(unit_folder(staging, unit), "rejected.gz")


def rest_path(staging: str, unit: int, shard: int, offset: int) -> str:
    """Where a unit stages the unreadable rest of a shard."""
    return files.join(unit_folder(staging, unit), f"rest-of-{shard:05d}-from-{offset}.bin")


def report_path(staging: str, unit: int) -> str:
    """Where a unit's report lies."""
    return files.join(unit_folder(staging, unit), "report.json")


def write_report(staging: str, report: UnitReport) -> None:
    """Writes a unit's report."""
    files.write_bytes(report_path(staging, report.unit), json.dumps(dataclasses.asdict(report)).encode())


def read_report(staging: str, unit: int) -> UnitReport:
    """Reads a unit's report."""
    held = json.loads(store.read_bytes(report_path(staging, unit)))
    entries = [Entry(**entry) for entry in held["entries"]]
    return UnitReport(**{**held, "entries": entries, "applied": [Applied(*one) for one in held["applied"]]})


def stage(unit: Unit, staging: str, names: Names, options: IngestOptions, pool: ThreadPoolExecutor) -> Iterator[Staged]:
    """Reads, checks and writes a unit's records; yields where the sound ones lie."""
    outputs = {split: _Pieces(staging, unit.number, split, options.shard_bytes) for split in SPLITS}
    rejected = files.RecordWriter(rejected_path(staging, unit.number))
    entries: list[Entry] = []
    empty: list[str] = []
    left_out: collections.Counter[str] = collections.Counter()
    applied: list[Applied] = []
    read = 0
    for shard in unit.shards:
        seen = 0
        with store.open_raw(shard.path) as stream:
            for record, checked in _checked(read_records(stream), names, options, pool):
                seen += 1
                if not isinstance(checked, Rejected) and checked.overlaid:
                    split = (shard.split or checked.split) if isinstance(checked, Accepted) else ""
                    applied.append(Applied(shard.number, record.index, split, *checked.overlaid))
                if isinstance(record, Record) and isinstance(checked, Accepted):
                    output = outputs[shard.split or checked.split]
                    piece, position = output.write(checked.data + checked.suffix)
                    place = Place(
                        shard.number, record.index, record.offset,
                        unit.number, output.split, piece, position, len(checked.suffix), checked.relabelled,
                    )  # fmt: skip
                    yield Staged(checked.image_id, checked.digest, place)
                    continue
                if isinstance(checked, LeftOut):
                    left_out[checked.label] += 1
                    continue
                assert isinstance(checked, Rejected)
                entry = Entry(
                    shard.name, shard.number, record.offset, record.index,
                    checked.image_id, checked.reason, checked.detail,
                )  # fmt: skip
                entries.append(entry)
                if isinstance(record, Record):
                    rejected.write_record(record.data)
                else:
                    _write_rest(rest_path(staging, unit.number, shard.number, record.offset), record)
        read += seen
        if not seen:
            empty.append(shard.name)
    rejected.close()
    pieces = {split: output.close() for split, output in outputs.items()}
    write_report(staging, UnitReport(unit.number, read, pieces, entries, empty, dict(left_out), applied))


def _checked(
    found: Iterable[Record | Rest], names: Names, options: IngestOptions, pool: ThreadPoolExecutor
) -> Iterator[tuple[Record | Rest, Verdict]]:
    """Yields all that was found with its verdict, in order; records are checked in `pool`, a few ahead."""
    waiting: collections.deque[tuple[Record | Rest, Future[Verdict] | Rejected]] = collections.deque()
    for record in found:
        if isinstance(record, Rest):
            # Its bytes are the stream's: they must be taken before anything else is read, and nothing else is.
            waiting.append((record, Rejected("", record.reason, record.detail)))
        elif not record.intact:
            waiting.append((record, Rejected("", contract.BAD_CHECKSUM, f"a record of {len(record.data)} bytes")))
        else:
            waiting.append((record, pool.submit(check_record, record.data, names, options)))
        if len(waiting) > _AHEAD * options.threads:
            yield _settled(waiting.popleft())
    while waiting:
        yield _settled(waiting.popleft())


def _settled(pair: tuple[Record | Rest, Future[Verdict] | Rejected]) -> tuple[Record | Rest, Verdict]:
    record, verdict = pair
    return record, verdict.result() if isinstance(verdict, Future) else verdict


def _write_rest(path: str, rest: Rest) -> None:
    writer = files.Writer(path)
    for chunk in rest.chunks:
        writer.write(chunk)
    writer.close()


class _Pieces:
    """The sound records of one split, written in pieces of about `limit` bytes."""

    def __init__(self, staging: str, unit: int, split: str, limit: int) -> None:
        self.split = split
        self._staging = staging
        self._unit = unit
        self._limit = limit
        self._writer: files.RecordWriter | None = None
        self._counts: list[int] = []

    def write(self, data: bytes) -> tuple[int, int]:
        """Writes a record; returns its piece and its position in that."""
        if self._writer is None:
            self._writer = files.RecordWriter(piece_path(self._staging, self._unit, self.split, len(self._counts)))
            self._counts.append(0)
        place = len(self._counts) - 1, self._counts[-1]
        self._writer.write_record(data)
        self._counts[-1] += 1
        if self._writer.record_bytes >= self._limit:
            self._writer.close()
            self._writer = None
        return place

    def close(self) -> list[int]:
        """Ends the last piece; returns the records in each."""
        if self._writer is not None:
            self._writer.close()
        return self._counts


class Loser(NamedTuple):
    """A staged record that another one makes superfluous."""

    place: Place
    image_id: int
    reason: str
    detail: str


# Of two reasons for one record the first is reported.
_RANK = (contract.TRAIN_AND_EVAL, contract.DUPLICATE_ID, contract.DUPLICATE_CONTENT)


def keys(staged: Staged) -> Iterator[tuple[bytes, Staged]]:
    """Yields the two keys under which a record is compared with others."""
    yield b"id " + str(staged.image_id).encode(), staged
    yield b"digest " + staged.digest, staged


def losers(key: bytes, alike: Iterable[Staged], shard_names: Sequence[str]) -> Iterator[Loser]:
    """Yields all but one of the records with one key.

    The evaluation set's copy wins over the training set's, which protects the test; then the first in the order of
    shards and records. A record that loses by one key is out even if it would win by the other.
    `alike` may be iterated more than once.
    """
    winner = min(alike, key=_precedence)
    for record in alike:
        if record.place == winner.place:
            continue
        same_image = record.digest == winner.digest
        if same_image and record.place.split != winner.place.split:
            reason = contract.TRAIN_AND_EVAL
        else:
            reason = contract.DUPLICATE_ID if key.startswith(b"id ") else contract.DUPLICATE_CONTENT
        place = winner.place
        detail = f"kept: image {winner.image_id}, record {place.record} of {shard_names[place.shard]} ({place.split})"
        yield Loser(record.place, record.image_id, reason, detail)


def foremost(found: Iterable[Loser]) -> list[Loser]:
    """Returns each record once, with the foremost of its reasons, in the order of shards and records."""
    best: dict[Place, Loser] = {}
    for loser in found:
        held = best.get(loser.place)
        if held is None or (_RANK.index(loser.reason), loser.detail) < (_RANK.index(held.reason), held.detail):
            best[loser.place] = loser
    return [best[place] for place in sorted(best)]


def _precedence(staged: Staged) -> tuple[bool, int, int]:
    return staged.place.split != EVAL, staged.place.shard, staged.place.record
