"""The answers of experts, in sheets of `marco relabel export` or of a plate page, and the images that they are about.

`read_key` returns the images of an export, `read_records` the records that have the images of plate pages' sheets, and
`read_sheets` the answers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from marco_data import overlay, shards
from marco_data.relabelling import scoring
from marco_model import errors, labels, store

EXPORT_FILE = "export.json"
_SHOWN_PROBLEMS = 5


class ExportedImage(NamedTuple):
    """An exported image as listed in `key.csv`: its split, its label and the classifier's prediction."""

    split: str
    old_label: str
    predicted: str


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
    """Returns the exported images by id, and the classes: those of the `export.json` beside it, or MARCO's four."""
    fix = "give the key.csv that `marco relabel export` wrote"
    images = {
        overlay.image_id(line): ExportedImage(*(line.cells[name] for name in ExportedImage._fields))
        for line in overlay.read_lines(path, ("image_id", *ExportedImage._fields), fix)
    }
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
    """Reads all sheets; `date` is that of lines with a label and no date. `ids`: for sheets of pages, by digest.

    The rater of a line without one is taken from the sheet's name. Raises `InputError` that names the first faulty
    lines with their files: an unknown class or image, an invalid date, or two labels of one rater for one image.
    """
    answers, problems = Answers(), []
    by_key = {labels.key(name): name for name in classes}
    column = "image_id" if ids is None else "image"
    for path in paths:
        for line in overlay.read_lines(path, (column, "label"), "give a sheet that `marco relabel export` wrote"):
            cells = {"rater": "", "date": "", **line.cells}
            cells["rater"] = cells["rater"] or Path(path).stem.removeprefix("sheet-")
            cells["date"] = cells["date"] or date
            numbers = [cells["image_id"]] if ids is None else map(str, dict.fromkeys(ids.get(cells["image"], ())))
            if ids is not None and cells["image"] not in ids:
                answers.unmatched.append((cells["filename"], cells["label"], cells["rater"], line.where))
            for number in numbers:
                try:
                    _add_line(answers, line._replace(cells={**cells, "image_id": number}), images, by_key)
                except errors.InputError as error:
                    problems.append(str(error))
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        shown = "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
        raise errors.InputError(f"{len(problems)} answers cannot be used, nothing was written: {shown}")
    return answers


def _add_line(
    answers: Answers, line: overlay.Line, images: Mapping[int, ExportedImage], classes: Mapping[str, str]
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
    if not line.cells["date"]:
        raise errors.InputError(
            f"{line.where}: date is empty; fill it in, or give --date YYYY-MM-DD for all such lines"
        )
    answer = overlay.Answer(label, rater, overlay.date(line), line.where)
    first = by_image.setdefault(image, answer)
    if first.label != label:
        raise errors.InputError(
            f"{line.where}: {rater} says {label} of image {image}, and {first.label} in {first.where}; keep one"
        )
    if first is not answer:
        answers.repeated.append(f"{line.where} repeats {first.where}")
