"""What became of each answer of an overlay, counted and listed: no answer is lost in silence."""

from __future__ import annotations

import collections
import csv
import io
from collections.abc import Mapping
from typing import Any

from components.example_gen.staging import Applied, UnitReport
from marco_data.relabelling.overlay import Answer
from marco_data.splits import SPLITS

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
