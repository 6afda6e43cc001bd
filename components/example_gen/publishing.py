"""The end of an ingest: duplicates are removed from units, counts and the quarantine written, examples published."""

import collections
import dataclasses
import heapq
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.example_gen import checks, files, staging
from marco_data import contract, name_tables, overlay, shards, tfrecord
from marco_model import errors, example_files, store

ENTRIES_FILE, COUNTS_FILE, SUMMARY_FILE = "quarantine.csv", "counts.csv", "summary.json"
OVERLAY_FILE = "overlay.csv"
ENTRY_HEADER = ("shard", "offset", "index", "image_id", "reason", "detail")
OVERLAY_HEADER = ("image_id", "label", "rater", "date", "outcome", "split", "given")
CHANGED, CONFIRMED, LEFT_OUT, QUARANTINED, UNUSED = "changed", "confirmed", "left_out", "quarantined", "unused"
_SHOWN_LABELS = 5


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    name_tables.write_rows(text, rows)
    return text.getvalue().encode()


def settle(folder: str, unit: int, found: Iterable[staging.Duplicate], shard_names: Sequence[str]) -> None:
    """Rewrites a unit's pieces without its duplicates, and adds these to its rejected records in the input's order.

    `folder` has the staged files. `found`: the duplicates, one perhaps several times for different reasons. A second
    attempt finds the first one's report, which is written last, and does nothing.
    """
    duplicates = staging.merge_reasons(found)
    report = staging.read_report(folder, unit)
    places = [duplicate.place for duplicate in duplicates]
    removed_keys = {(place.shard, place.record) for place in places}
    if removed_keys <= {(entry.number, entry.index) for entry in report.entries}:
        return
    entries = [
        staging.Entry(shard_names[place.shard], place.shard, place.offset, place.record, str(image_id), reason, detail)
        for place, image_id, reason, detail in duplicates
    ]
    pieces = {split: list(lengths) for split, lengths in report.pieces.items()}
    streams = [_rejected_records(folder, report)]
    writers: list[tuple[files.RecordWriter, str, int]] = []
    for split, piece in sorted({(place.split, place.piece) for place in places}):
        path = staging.piece_path(folder, unit, split, piece)
        writer = files.RecordWriter(_settled(path))
        writers.append((writer, split, piece))
        removed = {place.position: place for place in places if (place.split, place.piece) == (split, piece)}
        streams.append(_copy_without(path, removed, writer))
    rejected = files.RecordWriter(_settled(staging.rejected_path(folder, unit)))
    for _, data in heapq.merge(*streams, key=lambda pair: pair[0]):
        rejected.write_record(data)
    rejected.close()
    for writer, split, piece in writers:
        writer.close()
        pieces[split][piece] = writer.lengths
    merged = sorted([*report.entries, *entries], key=lambda entry: (entry.number, entry.index))
    applied = [answer for answer in report.applied if (answer.shard, answer.record) not in removed_keys]
    staging.write_report(folder, dataclasses.replace(report, pieces=pieces, entries=merged, applied=applied))


def _settled(path: str) -> str:
    """Returns the path of a staged file after duplicates were moved; it exists only if there were any."""
    return f"{path}.settled"


def _latest(path: str) -> str:
    return _settled(path) if store.exists(_settled(path)) else path


def _rejected_records(folder: str, report: staging.UnitReport) -> Iterator[tuple[tuple[int, int], bytes]]:
    with store.open_raw(staging.rejected_path(folder, report.unit)) as stream:
        entries = (entry for entry in report.entries if entry.has_record)
        for entry, record in zip(entries, tfrecord.read_records(stream), strict=True):
            yield (entry.number, entry.index), _intact(record).data


def _copy_without(
    path: str, removed: Mapping[int, staging.Place], writer: files.RecordWriter
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Copies a piece to `writer` without the positions `removed`, which it yields as they were read from the input.

    Those that were relabelled have their original features, perhaps in another order.
    """
    with store.open_raw(path) as stream:
        for record in map(_intact, tfrecord.read_records(stream)):
            place = removed.get(record.index)
            if place is None:
                writer.write_record(record.data)
            else:
                data = record.data[: len(record.data) - place.suffix_bytes]
                yield (place.shard, place.record), checks.restore_label(data) if place.relabelled else data


def _intact(record: object) -> tfrecord.Record:
    if not isinstance(record, tfrecord.Record) or not record.intact:
        raise OSError("a staged file is damaged: the storage lost bytes that were just written")
    return record


def publish(
    folder: str,
    units: Sequence[int],
    examples: str,
    quarantine: str,
    max_quarantined: float,
    answers: Mapping[int, overlay.Answer],
) -> dict[str, Any]:
    """Writes the quarantine and its tables; then, unless it exceeds the limit, renames the staged examples into place.

    `folder` has the staged files of `units`. `answers`: those of the overlay that was applied; the outcome of each is
    written to `overlay.csv` of the quarantine. Returns the summary. Raises `InputError` above `max_quarantined`, with
    the quarantine written and no examples.
    """
    files.make_folder(quarantine)
    pieces: dict[str, list[tuple[str, Sequence[int]]]] = {split: [] for split in shards.SPLITS}
    summary = _Summary(answers)
    # Written unit by unit, so that no number of entries fills the memory.
    entries = files.Writer(f"{quarantine}/{ENTRIES_FILE}")
    entries.write(_csv([ENTRY_HEADER]))
    for unit in units:
        report = staging.read_report(folder, unit)
        summary.add(report)
        entries.write(_csv([getattr(entry, name) for name in ENTRY_HEADER] for entry in report.entries))
        _publish_rejected(folder, report, quarantine)
        for split in shards.SPLITS:
            pieces[split] += [
                (_latest(staging.piece_path(folder, unit, split, piece)), lengths)
                for piece, lengths in enumerate(report.pieces[split])
            ]
    entries.close()
    counts = summary.counts()
    if answers:
        store.write_bytes(f"{quarantine}/{OVERLAY_FILE}", summary.overlay_table())
    store.write_bytes(f"{quarantine}/{COUNTS_FILE}", _csv([("reason", "count"), *counts["reasons"].items()]))
    store.write_bytes(f"{quarantine}/{SUMMARY_FILE}", (json.dumps(counts, indent=2) + "\n").encode())
    records, lost = counts["read"] - counts["left_out"], counts["lost"]
    share = (counts["quarantined"] + lost) / max(records + lost, 1)
    if share > max_quarantined:
        files.delete_tree(folder)
        failed = f"{counts['quarantined']} of {records} records{f' and about {lost} more' if lost else ''}"
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts["reasons"].items())
        raise errors.InputError(
            f"{failed} ({share:.2%}) failed, over the limit of {max_quarantined:.2%}: {reasons}{summary.unmapped()}; "
            f"see {quarantine}/{ENTRIES_FILE}, fix the data or raise max_quarantined"
        )
    for split in counts["splits"]:
        _publish_split(pieces[split], f"{examples}/Split-{split}")
    files.delete_tree(folder)
    return counts


class _Summary:
    """What became of the records read, which are counted separately and must agree, and of the answers of an overlay.

    A record that is read is written, quarantined or, by the label scheme, left out. An answer `changed` the class of a
    written record or `confirmed` it. Otherwise the label scheme `left_out` its record, or all its records were
    `quarantined` (as duplicates, for instance), or no record has its id: `unused`.
    """

    def __init__(self, answers: Mapping[int, overlay.Answer]) -> None:
        self._read, self._splits = 0, dict.fromkeys(shards.SPLITS, 0)
        self._record_bytes = self._rest_bytes = 0
        self._reasons, self._left_out, self._unmapped = (collections.Counter[str]() for _ in range(3))
        self._empty_shards: list[str] = []
        self._answers = answers
        self._applied: dict[int, staging.AppliedAnswer] = {}
        self._quarantined: set[int] = set()

    def add(self, report: staging.UnitReport) -> None:
        """Adds a unit."""
        self._read += report.read
        self._record_bytes += report.record_bytes
        self._rest_bytes += report.rest_bytes
        for split in shards.SPLITS:
            self._splits[split] += sum(map(len, report.pieces[split]))
        self._reasons.update(entry.reason for entry in report.entries)
        self._left_out.update(report.left_out)
        self._unmapped.update(entry.detail for entry in report.entries if entry.reason == contract.UNMAPPED_LABEL)
        self._empty_shards += report.empty_shards
        for applied in report.applied:
            if applied.split or applied.image_id not in self._applied:
                self._applied[applied.image_id] = applied
        if self._answers:
            ids = {int(entry.image_id) for entry in report.entries if entry.image_id}
            self._quarantined |= ids & self._answers.keys()

    def counts(self) -> dict[str, Any]:
        """Returns the summary; raises `RuntimeError` if a record is unaccounted for.

        Of the overlay it has `relabelled` (`total`, `confirmed`, `splits`, `by_class`: old → new → count), and the ids
        `overlay_unused`, which no record has, and `overlay_not_written`, whose records were quarantined or left out.
        """
        written, quarantined, left_out = sum(self._splits.values()), self._reasons.total(), self._left_out.total()
        if self._read != written + quarantined + left_out:
            raise RuntimeError(
                f"{self._read} records read, {written} written, {quarantined} quarantined and {left_out} left out"
            )
        outcomes = {number: self._outcome(number) for number in sorted(self._answers)}
        changed = [self._applied[number] for number, outcome in outcomes.items() if outcome == CHANGED]
        by_class: dict[str, collections.Counter[str]] = {}
        for applied in changed:
            by_class.setdefault(applied.old_class, collections.Counter())[applied.new_class] += 1
        return {
            "read": self._read,
            "written": written,
            "quarantined": quarantined,
            "lost": self._lost(),
            "reasons": dict(sorted(self._reasons.items())),
            "left_out": left_out,
            "left_out_labels": dict(self._left_out.most_common()),
            "splits": {split: n for split, n in self._splits.items() if n or split != shards.VALIDATION},
            "empty_shards": self._empty_shards,
            "relabelled": {
                "total": len(changed),
                "confirmed": list(outcomes.values()).count(CONFIRMED),
                "splits": {split: sum(applied.split == split for applied in changed) for split in shards.SPLITS},
                "by_class": {old: dict(sorted(new.items())) for old, new in sorted(by_class.items())},
            },
            "overlay_unused": [number for number, outcome in outcomes.items() if outcome == UNUSED],
            "overlay_not_written": [n for n, outcome in outcomes.items() if outcome in (LEFT_OUT, QUARANTINED)],
        }

    def _lost(self) -> int:
        """Returns about how many records the unreadable rests of shards held, beyond one each, by their bytes."""
        rests = sum(self._reasons[reason] for reason in tfrecord.REST_REASONS)
        if not self._record_bytes:
            return 0
        return max(0, round(self._rest_bytes * (self._read - rests) / self._record_bytes) - rests)

    def overlay_table(self) -> bytes:
        """Returns `overlay.csv`: one row per answer with its outcome, and the split and old class of its record."""
        rows: list[Sequence[object]] = [OVERLAY_HEADER]
        for number, answer in sorted(self._answers.items()):
            applied = self._applied.get(number)
            record = (applied.split, applied.old_class) if applied else ("", "")
            rows.append((number, answer.label, answer.rater, answer.date, self._outcome(number), *record))
        return _csv(rows)

    def _outcome(self, number: int) -> str:
        applied = self._applied.get(number)
        if applied and applied.split:
            return CONFIRMED if applied.old_class == applied.new_class else CHANGED
        if applied:
            return LEFT_OUT
        return QUARANTINED if number in self._quarantined else UNUSED

    def unmapped(self) -> str:
        """Returns the commonest labels without an entry in the label scheme, for a message; empty if there are none."""
        return "".join(f"; {detail}: {count}" for detail, count in self._unmapped.most_common(_SHOWN_LABELS))


def _publish_rejected(folder: str, report: staging.UnitReport, quarantine: str) -> None:
    renames = []
    if any(entry.has_record for entry in report.entries):
        staged = _latest(staging.rejected_path(folder, report.unit))
        renames.append((staged, f"{quarantine}/records-{report.unit:05d}.tfrecord"))
    for entry in report.entries:
        if not entry.has_record:
            path = staging.rest_path(folder, report.unit, entry.number, entry.offset)
            renames.append((path, f"{quarantine}/{path.rpartition('/')[2]}"))
    files.rename(renames)


def _publish_split(pieces: Sequence[tuple[str, Sequence[int]]], folder: str) -> None:
    """Renames a split's pieces to TFX's names and writes their index; a split without records gets one empty file."""
    files.make_folder(folder)
    total = max(len(pieces), 1)
    names = [f"data_tfrecord-{number:05d}-of-{total:05d}" for number in range(total)]
    if pieces:
        files.rename([(path, f"{folder}/{name}") for (path, _), name in zip(pieces, names, strict=True)])
    else:
        files.RecordWriter(f"{folder}/{names[0]}").close()
    example_files.write_index(folder, {name: lengths for name, (_, lengths) in zip(names, pieces, strict=False)})
