"""From sheets to an overlay and a report, file by file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marco_data.relabelling import csv_lines, report
from marco_data.relabelling.merging import Merged, merge
from marco_data.relabelling.overlay import Answer, newest_answers, read_answers, write_overlay
from marco_data.relabelling.sheets import Answers, read_key, read_sheets
from marco_model.errors import InputError
from marco_model.labels import key

UNDECIDED_HEADER = ("image_id", "rater", "label", "date", "where")
UNANSWERED_HEADER = ("image_id", "rater", "where")


def merge_sheets(
    sheets: Sequence[str], key_path: str, output: Path, *, rule: str = "majority", date: str = "", earlier: str = ""
) -> tuple[dict[str, Any], Answers]:
    """Writes the overlay `output` and, beside it, what tells of it; returns the report and the answers.

    Beside `overlay.csv`: `overlay.report.json`, `overlay.report.html`, `overlay.undecided.csv` with every answer to an
    image that the rule leaves as it was, and `overlay.unanswered.csv` with the lines without a label. `earlier`: an
    overlay of before, all of whose lines go in first. Raises `InputError`, with nothing written, for what cannot be
    used, and where an answer is not newer than another one in `earlier`.
    """
    images, classes = read_key(key_path)
    answers = read_sheets(sheets, images, classes, date)
    merged = merge(answers.by_rater, rule)
    before = read_answers(earlier) if earlier else []
    _refuse_answers_that_do_not_count(newest_answers(before), merged.decided)
    told = report.report(images, answers, merged, classes, rule)
    lines = ((number, one._replace(where="")) for number, one in (*before, *merged.decided.items()))
    write_overlay(output, dict.fromkeys(lines))  # Once each, though the same sheets be merged again.
    output.with_suffix(".report.json").write_text(json.dumps(told, indent=2) + "\n")
    output.with_suffix(".report.html").write_text(report.page(told), encoding="utf-8")
    _write_leftovers(output, merged, answers)
    return told, answers


def _refuse_answers_that_do_not_count(before: Mapping[int, Answer], decided: Mapping[int, Answer]) -> None:
    """Of an overlay the newest date counts; the report would tell of a change that is none."""
    for number, answer in decided.items():
        held = before.get(number)
        if held and held.date >= answer.date and key(held.label) != key(answer.label):
            raise InputError(
                f"{held.where}: image {number} is {held.label} on {held.date}, and {answer.label} on {answer.date} in "
                f"{answer.where}, which is no later; remove that line of the earlier overlay, or this answer"
            )


def _write_leftovers(output: Path, merged: Merged, answers: Answers) -> None:
    undecided = [
        (number, one.rater, one.label, one.date, one.where) for number, ones in merged.undecided.items() for one in ones
    ]
    unanswered = [(number, rater, where) for where, number, rater in answers.unanswered]
    for kind, header, rows in (
        (".undecided.csv", UNDECIDED_HEADER, undecided),
        (".unanswered.csv", UNANSWERED_HEADER, unanswered),
    ):
        path = output.with_suffix(kind)
        path.unlink(missing_ok=True)
        if rows:
            csv_lines.write_lines(path, header, rows)
