"""What came back from the experts: their sheets, checked against the key."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from marco_data.files import exists, read_bytes
from marco_data.relabelling import csv_lines
from marco_data.relabelling.overlay import Answer
from marco_model.errors import InputError
from marco_model.labels import CLASSES, key

ABOUT = "export.json"
_SHEET = ("image_id", "label", "rater", "date")
_TOLD = 5


class Keyed(NamedTuple):
    """An exported image, as `key.csv` has it: its split, and what it was labelled and predicted."""

    split: str
    old_label: str
    predicted: str


@dataclasses.dataclass(frozen=True)
class Answers:
    """`by_rater`: rater → image id → answer, raters in the order of their sheets. The rest says what to know of sheets.

    A rater is named as where the name, whatever its case, stands first.

    `unanswered`: (where, image id, rater) of lines with an empty label. `repeated`: lines that say the same again.
    """

    by_rater: Mapping[str, Mapping[int, Answer]]
    unanswered: Sequence[tuple[str, int, str]]
    repeated: Sequence[str]


def read_key(path: str) -> tuple[dict[int, Keyed], tuple[str, ...]]:
    """Returns the exported images by id, and the classes: those of the `export.json` beside it, or MARCO's four."""
    mend = "give the key.csv that `marco relabel export` wrote"
    lines = csv_lines.read_lines(path, ("image_id", "split", "old_label", "predicted"), mend)
    images = {
        csv_lines.image_id(line): Keyed(*(line.cells[name] for name in ("split", "old_label", "predicted")))
        for line in lines
    }
    folder, slash, _ = path.rpartition("/")
    about = f"{folder}{slash}{ABOUT}"
    return images, tuple(json.loads(read_bytes(about))["classes"]) if exists(about) else CLASSES


def read_sheets(paths: Sequence[str], images: Mapping[int, Keyed], classes: Sequence[str], date: str = "") -> Answers:
    """Reads all sheets; `date` stands where a line with a label has none.

    A sheet's name stands for a rater that is not filled in. Raises `InputError` that names each file and line at fault,
    the first few of many: an unknown class or image, a date that is none, or two labels of one rater for one image.
    """
    reader = _Reader(images, {key(name): name for name in classes}, date)
    for path in paths:
        for line in csv_lines.read_lines(path, ("image_id", "label"), "give a sheet that `marco relabel export` wrote"):
            try:
                reader.take(path, line)
            except InputError as error:
                reader.problems.append(str(error))
    if reader.problems:
        more = len(reader.problems) - _TOLD
        told = "; ".join(reader.problems[:_TOLD]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(f"{len(reader.problems)} answers cannot be used, nothing was written: {told}")
    return Answers(reader.by_rater, reader.unanswered, reader.repeated)


class _Reader:
    def __init__(self, images: Mapping[int, Keyed], classes: Mapping[str, str], date: str) -> None:
        self._images, self._classes, self._date = images, classes, date
        self._raters: dict[str, str] = {}
        self.by_rater: dict[str, dict[int, Answer]] = {}
        self.unanswered: list[tuple[str, int, str]] = []
        self.repeated: list[str] = []
        self.problems: list[str] = []

    def take(self, path: str, line: csv_lines.Line) -> None:
        """Takes a line; raises `InputError` where it cannot be used."""
        cells = {**dict.fromkeys(_SHEET, ""), **line.cells}
        number = csv_lines.image_id(line)
        if number not in self._images:
            raise InputError(f"{line.where}: image {number} was not exported; give the key.csv of this sheet")
        named = cells["rater"] or Path(path).stem.removeprefix("sheet-")
        rater = self._raters.setdefault(named.casefold(), named)
        answers = self.by_rater.setdefault(rater, {})
        if not cells["label"]:
            self.unanswered.append((line.where, number, rater))
            return
        label = self._classes.get(key(cells["label"]))
        if label is None:
            raise InputError(f"{line.where}: class {cells['label']!r} is none of {', '.join(self._classes.values())}")
        if not cells["date"] and not self._date:
            raise InputError(f"{line.where}: date is empty; fill it in, or give --date YYYY-MM-DD for all such lines")
        dated = line._replace(cells={**cells, "date": cells["date"] or self._date})
        answer = Answer(label, rater, csv_lines.date(dated), line.where)
        held = answers.get(number)
        if held and held.label != label:
            raise InputError(
                f"{line.where}: {rater} says {label} of image {number}, and {held.label} in {held.where}; keep one"
            )
        if held:
            self.repeated.append(f"{line.where} repeats {held.where}")
        else:
            answers[number] = answer
