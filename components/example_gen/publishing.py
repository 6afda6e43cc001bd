"""The end of an ingest: counts, the limit, the quarantine's tables, and the examples under their names."""

from __future__ import annotations

import collections
import csv
import dataclasses
import heapq
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.example_gen import files
from components.example_gen.checks import as_given
from components.example_gen.staging import (
    Applied,
    Entry,
    Loser,
    Place,
    UnitReport,
    piece_path,
    read_report,
    rejected_path,
    rest_path,
    write_report,
)
from marco_data.contract import UNMAPPED_LABEL
from marco_data.overlay import Answer
from marco_data.shards import SPLITS
from marco_data.tfrecord import Record, read_records
from marco_model import store
from marco_model.errors import InputError

OVERLAY_FILE = "overlay.csv"
HEADER = ("image_id", "label", "rater", "date", "outcome", "split", "given")
CHANGED, CONFIRMED, LEFT_OUT, QUARANTINED, UNUSED = "changed", "confirmed", "left_out", "quarantined", "unused"


class OverlayTrace:
    """Gathers the units' reports, then tells.

    An answer `changed` the class of a record that was written, or `confirmed` it; or its record was `left_out` by the
    label scheme or `quarantined`, as a copy that lost is too where none was written; or no record has its id: `unused`.
    """

    def __init__(self, overlay: Mapping[int, Answer]) -> None:
        self._overlay = overlay
        self._applied: dict[int, Applied] = {}
        self._quarantined: set[int] = set()

    def add(self, report: UnitReport) -> None:
        """Adds a unit."""
        for one in report.applied:
            if one.split or one.image_id not in self._applied:
                self._applied[one.image_id] = one
        if self._overlay:
            ids = {int(entry.image_id) for entry in report.entries if entry.image_id}
            self._quarantined |= ids & self._overlay.keys()

    def counts(self) -> dict[str, Any]:
        """Returns `relabelled` (`total`, `confirmed`, `splits`, `by_class`: old → new → count) and the ids in vain.

        These are `overlay_unused`, which no record has, and `overlay_not_written`, whose records were quarantined or
        left out.
        """
        outcomes = {number: self._outcome(number) for number in sorted(self._overlay)}
        changed = [self._applied[number] for number, outcome in outcomes.items() if outcome == CHANGED]
        by_class: dict[str, collections.Counter[str]] = {}
        for one in changed:
            by_class.setdefault(one.given, collections.Counter())[one.became] += 1
        return {
            "relabelled": {
                "total": len(changed),
                "confirmed": list(outcomes.values()).count(CONFIRMED),
                "splits": {split: sum(one.split == split for one in changed) for split in SPLITS},
                "by_class": {old: dict(sorted(new.items())) for old, new in sorted(by_class.items())},
            },
            "overlay_unused": [number for number, outcome in outcomes.items() if outcome == UNUSED],
            "overlay_not_written": [n for n, outcome in outcomes.items() if outcome in (LEFT_OUT, QUARANTINED)],
        }

    def table(self) -> bytes:
        """Returns `overlay.csv`: a row an answer, with its outcome, and the split and the class of its record."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADER)
        for number, answer in sorted(self._overlay.items()):
            one = self._applied.get(number)
            found = (one.split, one.given) if one else ("", "")
            writer.writerow((number, answer.label, answer.rater, answer.date, self._outcome(number), *found))
        return text.getvalue().encode()

    def _outcome(self, number: int) -> str:
        one = self._applied.get(number)
        if one and one.split:
            return CONFIRMED if one.given == one.became else CHANGED
        if one:
            return LEFT_OUT
        return QUARANTINED if number in self._quarantined else UNUSED


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
    with store.open_raw(rejected_path(staging, report.unit)) as stream:
        entries = (entry for entry in report.entries if entry.has_record)
        for entry, record in zip(entries, read_records(stream), strict=True):
            yield (entry.number, entry.index), _whole(record).data


def _parted(path: str, losing: dict[int, Place], writer: files.RecordWriter) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Copies a piece to `writer` but for the losing positions, which it yields as they were read from the input.

    Of those that were given another class the features are as they were, in an order of their own.
    """
    with store.open_raw(path) as stream:
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


ENTRY_HEADER = ("shard", "offset", "index", "image_id", "reason", "detail")
ENTRIES_FILE = "quarantine.csv"
COUNTS_FILE = "counts.csv"
SUMMARY_FILE = "summary.json"
_UNMAPPED_TOLD = 5


def publish(
    staging: str,
    units: Sequence[int],
    examples: str,
    quarantine: str,
    max_quarantined: float,
    overlay: Mapping[int, Answer] | None = None,
) -> dict[str, Any]:
    """Writes the quarantine and its tables; then, if it holds few enough, renames the staged examples into place.

    `overlay`: the answers that were applied; what became of each is written to `overlay.csv` of the quarantine. Returns
    the summary. Raises `InputError` above `max_quarantined`, with the quarantine written and no examples.
    """
    files.make_folder(quarantine)
    pieces: dict[str, list[str]] = {split: [] for split in SPLITS}
    summary = _Summary()
    trace = OverlayTrace(overlay or {})
    entries = _EntriesWriter(files.join(quarantine, ENTRIES_FILE))
    for unit in units:
        report = read_report(staging, unit)
        summary.add(report)
        trace.add(report)
        entries.write(report.entries)
        _publish_rejected(staging, report, quarantine)
        for split in SPLITS:
            pieces[split] += [
                _latest(settled_path(staging, unit, split, piece), piece_path(staging, unit, split, piece))
                for piece in range(len(report.pieces[split]))
            ]
    entries.close()
    counts = {**summary.as_dict(), **trace.counts()}
    if overlay:
        files.write_bytes(files.join(quarantine, OVERLAY_FILE), trace.table())
    files.write_bytes(files.join(quarantine, COUNTS_FILE), _counts_table(counts["reasons"]))
    files.write_bytes(files.join(quarantine, SUMMARY_FILE), (json.dumps(counts, indent=2) + "\n").encode())
    _hold_to_limit(counts, max_quarantined, staging, files.join(quarantine, ENTRIES_FILE), summary.unmapped())
    for split in SPLITS:
        _publish_split(pieces[split], files.join(examples, f"Split-{split}"))
    files.delete_tree(staging)
    return counts


class _Summary:
    """What was read and what became of it; the two are counted apart and must agree.

    What is read is written, quarantined or, by the label scheme, left out.
    """

    def __init__(self) -> None:
        self._read = 0
        self._splits = dict.fromkeys(SPLITS, 0)
        self._reasons: collections.Counter[str] = collections.Counter()
        self._left_out: collections.Counter[str] = collections.Counter()
        self._unmapped: collections.Counter[str] = collections.Counter()
        self._empty_shards: list[str] = []

    def add(self, report: UnitReport) -> None:
        """Adds a unit."""
        self._read += report.read
        for split in SPLITS:
            self._splits[split] += sum(report.pieces[split])
        self._reasons.update(entry.reason for entry in report.entries)
        self._left_out.update(report.left_out)
        self._unmapped.update(entry.detail for entry in report.entries if entry.reason == UNMAPPED_LABEL)
        self._empty_shards += report.empty_shards

    def as_dict(self) -> dict[str, Any]:
        """Returns the summary; raises `RuntimeError` if a record is unaccounted for."""
        written, quarantined, left_out = sum(self._splits.values()), self._reasons.total(), self._left_out.total()
        if self._read != written + quarantined + left_out:
            raise RuntimeError(
                f"{self._read} records read, {written} written, {quarantined} quarantined and {left_out} left out"
            )
        return {
            "read": self._read,
            "written": written,
            "quarantined": quarantined,
            "reasons": dict(sorted(self._reasons.items())),
            "left_out": left_out,
            "left_out_labels": dict(self._left_out.most_common()),
            "splits": self._splits,
            "empty_shards": self._empty_shards,
        }

    def unmapped(self) -> str:
        """Returns what to say of the commonest labels without an entry in the label scheme, or nothing."""
        return "".join(f"; {detail}: {count}" for detail, count in self._unmapped.most_common(_UNMAPPED_TOLD))


class _EntriesWriter:
    """`quarantine.csv`, written unit by unit so that no number of entries fills the memory."""

    def __init__(self, path: str) -> None:
        self._writer = files.Writer(path)
        self._write_rows([ENTRY_HEADER])

    def write(self, entries: Iterable[Entry]) -> None:
        """Appends entries."""
        self._write_rows(
            (entry.shard, entry.offset, entry.index, entry.image_id, entry.reason, entry.detail) for entry in entries
        )

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()

    def _write_rows(self, rows: Iterable[Sequence[object]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._writer.write(text.getvalue().encode())


def _publish_rejected(staging: str, report: UnitReport, quarantine: str) -> None:
    renames = []
    if any(entry.has_record for entry in report.entries):
        staged = _latest(settled_rejected_path(staging, report.unit), rejected_path(staging, report.unit))
        renames.append((staged, files.join(quarantine, f"records-{report.unit:05d}.gz")))
    for entry in report.entries:
        if not entry.has_record:
            path = rest_path(staging, report.unit, entry.number, entry.offset)
            renames.append((path, files.join(quarantine, path.rsplit("/", 1)[1])))
    files.rename(renames)


def _publish_split(pieces: Sequence[str], folder: str) -> None:
    """Renames a split's pieces to TFX's names; a split without records gets one file without records."""
    files.make_folder(folder)
    total = max(len(pieces), 1)
    targets = [files.join(folder, f"data_tfrecord-{number:05d}-of-{total:05d}.gz") for number in range(total)]
    if pieces:
        files.rename(list(zip(pieces, targets, strict=True)))
    else:
        files.RecordWriter(targets[0]).close()


def _latest(settled: str, staged: str) -> str:
    return settled if store.exists(settled) else staged


def _counts_table(reasons: Mapping[str, int]) -> bytes:
    return "".join(["reason,count\n", *(f"{reason},{count}\n" for reason, count in reasons.items())]).encode()


def _hold_to_limit(
    counts: Mapping[str, Any], max_quarantined: float, staging: str, entries: str, unmapped: str
) -> None:
    wanted = counts["read"] - counts["left_out"]
    share = counts["quarantined"] / max(wanted, 1)
    if share <= max_quarantined:
        return
    files.delete_tree(staging)
    named = ", ".join(f"{reason} {count}" for reason, count in counts["reasons"].items())
    raise InputError(
        f"{counts['quarantined']} of {wanted} records ({share:.2%}) failed, over the limit of "
        f"{max_quarantined:.2%}: {named}{unmapped}; see {entries}, mend the data or raise max_quarantined"
    )
