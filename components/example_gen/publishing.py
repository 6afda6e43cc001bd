"""The end of an ingest: counts, the limit, the quarantine's tables, and the examples under their names."""

from __future__ import annotations

import collections
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components.example_gen import files
from components.example_gen.overlay_trace import OVERLAY_FILE, OverlayTrace
from components.example_gen.settling import settled_path, settled_rejected_path
from components.example_gen.staging import Entry, UnitReport, piece_path, read_report, rejected_path, rest_path
from marco_data.reasons import UNMAPPED_LABEL
from marco_data.relabelling.overlay import Answer
from marco_data.splits import SPLITS
from marco_model.errors import InputError

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
    return settled if files.exists(settled) else staged


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
