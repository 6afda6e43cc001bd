"""The answers of experts, in sheets of `marco relabel export` or of a plate page, and the images they are about."""

import dataclasses
import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from marco_data import name_tables, overlay, shards
from marco_data.relabelling import scoring
from marco_model import errors, labels, store

EXPORT_FILE = "export.json"
_KEY_COLUMNS = ("image_id", "split", "old_label", "predicted")
_SHOWN_PROBLEMS = 5


class ExportedImage(NamedTuple):
    """An exported image as in `key.csv`: its split, its label, the classifier's prediction, its file in the sheets."""

    split: str
    old_label: str
    predicted: str
    file: str = ""


@dataclasses.dataclass(frozen=True)
class Answers:
    """`by_rater`: rater → image id → answer, raters in the order of their sheets.

    A rater's name is spelled as at its first occurrence, whatever its case later. `unanswered`: (where, image id,
    rater) of lines with an empty label. `repeated`: messages about lines that repeat an answer. `unmatched`: (path,
    label, rater, where) of a plate page's answers to images that are in no record.
    """

    by_rater: dict[str, dict[int, overlay.Answer]] = dataclasses.field(default_factory=dict)
    unanswered: list[tuple[str, int, str]] = dataclasses.field(default_factory=list)
    repeated: list[str] = dataclasses.field(default_factory=list)
    unmatched: list[tuple[str, str, str, str]] = dataclasses.field(default_factory=list)

    def of_rater(self, name: str) -> tuple[str, dict[int, overlay.Answer]]:
        """Returns how a rater's name is spelled, and the rater's answers."""
        rater = next((rater for rater in self.by_rater if rater.casefold() == name.casefold()), name)
        return rater, self.by_rater.setdefault(rater, {})


def read_key(path: str) -> tuple[dict[int, ExportedImage], tuple[str, ...]]:
    """Returns the exported images by id, and the classes: those of the `export.json` beside it, or MARCO's four.

    Raises `InputError` if a spreadsheet has rounded its ids.
    """
    fix = "give the key.csv that `marco relabel export` wrote"
    images = {
        overlay.image_id(line): ExportedImage(**{name: line.cells.get(name, "") for name in ExportedImage._fields})
        for line in overlay.read_lines(path, _KEY_COLUMNS, fix)
    }
    name_tables.refuse_rounded_ids(images, path)
    folder, slash, _ = path.rpartition("/")
    export = store.read_json(f"{folder}{slash}{EXPORT_FILE}")
    return images, tuple(export.get("classes", labels.CLASSES))


Records = tuple[dict[int, ExportedImage], tuple[str, ...], dict[str, list[int]]]


def read_records(sheets: Sequence[str], data: Sequence[str]) -> Records:
    """Returns the records of `data` that have the images of plate pages' sheets, by id; the classes; ids by digest.

    The classes are MARCO's four and the labels of the records. Raises `InputError` if no record has any of the images.
    """
    fix = "give a sheet that a plate page saved, or --key for one of `marco relabel export`"
    lines = [line for sheet in sheets for line in overlay.read_lines(sheet, ("image", "filename", "label"), fix)]
    predicted = {line.cells["image"]: line.cells.get("predicted", "") for line in lines}
    records = scoring.records_of_images(shards.find_shards(data), predicted)
    if not records:
        raise errors.InputError(
            f"no record of {', '.join(data)} has one of the {len(predicted)} images of {', '.join(sheets)}; images "
            "that are not in shards yet are imported with their labels: marco data import --csv SHEET"
        )
    images = {
        record.image_id: ExportedImage(record.split, record.label, predicted[digest])
        for digest, of_image in records.items()
        for record in sorted(of_image, key=lambda record: record.split == shards.EVAL)
    }
    names = (*sorted({image.old_label for image in images.values()}), *labels.CLASSES)
    classes = tuple({labels.key(name): name for name in names}.values())
    return images, classes, {digest: [record.image_id for record in of_image] for digest, of_image in records.items()}


def read_sheets(
    paths: Sequence[str],
    images: Mapping[int, ExportedImage],
    classes: Sequence[str],
    date: str = "",
    ids: Mapping[str, Sequence[int]] | None = None,
) -> Answers:
    """Reads all sheets; `ids`: for sheets of pages, by digest.

    `date` is that of lines with a label and no date; by default the day of the sheet's last change. The rater of a line
    without one is taken from the sheet's name. Raises `InputError` that names the first faulty
    lines with their files: an unknown class or image, an invalid date, or two labels of one rater for one image.
    """
    answers, problems = Answers(), []
    by_key = {labels.key(name): name for name in classes}
    column = "image_id" if ids is None else "image"
    files = {image.file: number for number, image in images.items() if image.file}
    for path in paths:
        lines = overlay.read_lines(path, (column, "label"), "give a sheet that `marco relabel export` wrote")
        order, day = overlay.day_first(lines), date or _changed(path)
        for line in lines:
            cells = {"rater": "", "date": "", **line.cells}
            cells["rater"] = cells["rater"] or Path(path).stem.removeprefix("sheet-")
            cells["date"] = cells["date"] or day
            numbers = (
                [_as_exported(cells, files)] if ids is None else map(str, dict.fromkeys(ids.get(cells["image"], ())))
            )
            if ids is not None and cells["image"] not in ids:
                answers.unmatched.append((cells.get("filename", ""), cells["label"], cells["rater"], line.where))
            for number in numbers:
                try:
                    _add_line(answers, line._replace(cells={**cells, "image_id": number}), images, by_key, order)
                except errors.InputError as error:
                    problems.append(str(error))
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        shown = "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
        raise errors.InputError(f"{len(problems)} answers cannot be used, nothing was written: {shown}")
    return answers


def _changed(path: str) -> str:
    """Returns the day on which a sheet was last changed; for one in a bucket today's."""
    seconds = time.time() if store.is_remote(path) else Path(path).stat().st_mtime
    return datetime.date.fromtimestamp(seconds).isoformat()


def _as_exported(cells: Mapping[str, str], files: Mapping[str, int]) -> str:
    """Returns the id of a line; that of its file where the cell is what a spreadsheet makes of it."""
    number = files.get(cells.get("file", ""))
    if number is not None and name_tables.is_as_excel_leaves(cells["image_id"], number):
        return str(number)
    return cells["image_id"]


def _add_line(
    answers: Answers,
    line: overlay.Line,
    images: Mapping[int, ExportedImage],
    classes: Mapping[str, str],
    day_first: bool | None,
) -> None:
    """Adds a line of a sheet, with its rater; `classes` are by `labels.key`. Raises `InputError` for a faulty line."""
    image, text = overlay.image_id(line), line.cells["label"]
    if image not in images:
        raise errors.InputError(f"{line.where}: image {image} was not exported; give the key.csv of this sheet")
    rater, by_image = answers.of_rater(line.cells["rater"])
    if not text:
        answers.unanswered.append((line.where, image, rater))
        return
    label = classes.get(labels.key(text))
    if label is None:
        raise errors.InputError(f"{line.where}: class {text!r} is not one of {', '.join(classes.values())}")
    answer = overlay.Answer(label, rater, overlay.date(line, day_first), line.where)
    first = by_image.setdefault(image, answer)
    if first.label != label:
        raise errors.InputError(
            f"{line.where}: {rater} says {label} of image {image}, and {first.label} in {first.where}; keep one"
        )
    if first is not answer:
        answers.repeated.append(f"{line.where} repeats {first.where}")
