"""The images that experts look at, the folder of sheets they get (`marco relabel export`), and their answers in it."""

import dataclasses
import datetime
import hashlib
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marco_data import name_tables, overlay, pages, shards
from marco_data.relabelling.scoring import ScoredRecords, encoded_images, records_of_images
from marco_model import errors, labels, store

RATERS, IMAGES, KEY, ABOUT, SKIPPED = "raters", "images", "key.csv", "export.json", "skipped.csv"
SHEET_HEADER = ("image_id", "file", "label", "rater", "date", "note")
KEY_HEADER = ("image_id", "file", "split", "shard", "index", "old_label", "predicted", "probability", "disagreement")
SKIPPED_HEADER = ("shard", "index", "reason")
_RATER_NAME = re.compile(r"[\w][\w .@-]*")


def check_share(share: float) -> None:
    """Raises `InputError` for a share that is not above 0 and at most 1."""
    if not 0 < share <= 1:
        raise errors.InputError(f"--share is {share}; give a share above 0 and up to 1, such as 0.05")


def check_raters(raters: Sequence[str]) -> None:
    """Raises `InputError` for names that cannot be part of a file name, and for equal ones."""
    for name in raters:
        if not _RATER_NAME.fullmatch(name):
            raise errors.InputError(
                f"rater {name!r} cannot name a file; use letters, digits, spaces, '.', '@', '_' and '-'"
            )
    if not raters or len({name.casefold() for name in raters}) < len(raters):
        raise errors.InputError(f"raters are {', '.join(raters) or 'none'}; give each a name of its own")


def label_probabilities(scored: ScoredRecords) -> np.ndarray:
    """Returns the probability of each record's own label, float32 [n]; disagreement is 1 minus that.

    It measures how little the classifier believes the label, whatever else it believes in. The log-odds give the same
    ranking. The margin to the best other class would rank an image lower if the classifier is torn between two other
    classes, though its label is equally improbable.
    """
    return np.asarray(scored.probabilities[np.arange(len(scored.labels)), scored.labels])


def most_disagreeing(scored: ScoredRecords, share: float) -> dict[str, np.ndarray]:
    """Returns, by split, the rows of the `share` of its images whose labels are least probable, the least first.

    Of records with the same id only one counts: that of the evaluation set, if there is one, as in ExampleGen. Equal
    probabilities are sorted by id, so the order of shards does not matter. At least one image of a split is taken,
    unless all of its images count in another. Raises `InputError` for an invalid share.
    """
    check_share(share)
    probabilities = label_probabilities(scored)
    order = np.lexsort((np.arange(len(scored.splits)), scored.splits != shards.EVAL))
    _, first = np.unique(scored.image_ids[order], return_index=True)
    counted = np.sort(order[first])
    chosen = {}
    for split in sorted(set(scored.splits.tolist())):
        rows = counted[scored.splits[counted] == split]
        order = np.lexsort((scored.image_ids[rows], probabilities[rows]))
        chosen[split] = rows[order[: math.ceil(share * len(rows) - 1e-9)]]
    return chosen


class Item(NamedTuple):
    """An image to look at: its row among the scored records, its id, and its file, named by a shuffled order."""

    row: int
    image_id: int
    file: str


def write_export(
    output: Path,
    files: Sequence[shards.File],
    scored: ScoredRecords,
    chosen: Mapping[str, np.ndarray],
    raters: Sequence[str],
    seed: int,
    skipped: Sequence[tuple[str, int, str]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the folder `output`, new or empty, and returns the content of its `export.json`.

    Experts get `raters/`: `images/` as they are in the records, `index.html`, `sheet-NAME.csv`. Beside it, not for
    them: `key.csv`, `export.json` (`about`, classes, counts), and `skipped.csv` if records could not be scored.
    `files`: the shards scored. `chosen`: rows of `scored` by split. The order is drawn by `seed` and the image ids.
    """
    store.require_new_or_empty(output)
    export = {**about, "classes": list(scored.classes), "skipped": len(skipped), "splits": _counts(scored, chosen)}
    with store.whole_directory(output) as folder:
        (folder / RATERS / IMAGES).mkdir(parents=True)
        items = _write_images(folder / RATERS, files, scored, np.concatenate(list(chosen.values())), seed)
        write_page(folder / RATERS / "index.html", items, scored.classes, raters)
        for name in raters:
            rows = ((item.image_id, item.file, "", name, "", "") for item in items)
            name_tables.write_csv(folder / RATERS / f"sheet-{name}.csv", SHEET_HEADER, rows, for_excel=True)
        name_tables.write_csv(folder / KEY, KEY_HEADER, (_key_row(item, files, scored) for item in items))
        if skipped:
            name_tables.write_csv(folder / SKIPPED, SKIPPED_HEADER, skipped)
        (folder / ABOUT).write_text(json.dumps(export, indent=2) + "\n")
    return export


def write_page(path: Path, items: Sequence[Item], classes: Sequence[str], raters: Sequence[str]) -> None:
    """Writes the page to label images in; it belongs beside their folder.

    Keys 1, 2, … choose a class. The browser keeps answers until they are saved as a sheet, which the page can load.
    """
    settings = {
        "name": hashlib.sha256("".join(f"{item.image_id} {item.file}\n" for item in items).encode()).hexdigest()[:16],
        "classes": list(classes),
        "raters": list(raters),
        "items": [[str(item.image_id), item.file] for item in items],
    }
    folder = Path(__file__).parent
    script = (folder / "rater_page.js").read_text(encoding="utf-8")
    page = pages.environment(folder).get_template("rater_page.html.jinja").render(settings=settings, script=script)
    path.write_text(page, encoding="utf-8")


def _write_images(
    folder: Path, files: Sequence[shards.File], scored: ScoredRecords, rows: np.ndarray, seed: int
) -> list[Item]:
    """Writes the images of `rows` below `folder` and returns them in the order in which they are shown."""
    shown = sorted(rows.tolist(), key=lambda row: shards.hashed_draw(f"relabel {seed} {scored.image_ids[row]}"))
    width = max(4, len(str(len(shown))))
    places = {tuple(scored.places[row].tolist()): (number, row) for number, row in enumerate(shown, 1)}
    items: dict[int, Item] = {}
    for (number, row), encoded in encoded_images(files, places):
        ending = "png" if encoded.startswith(b"\x89PNG") else "jpg"
        file = f"{IMAGES}/{number:0{width}d}.{ending}"
        (folder / file).write_bytes(encoded)
        items[number] = Item(row, int(scored.image_ids[row]), file)
    if len(items) < len(shown):
        raise errors.InputError(f"{len(shown) - len(items)} records are gone since they were scored; export again")
    return [items[number] for number in sorted(items)]


def _key_row(item: Item, files: Sequence[shards.File], scored: ScoredRecords) -> tuple[object, ...]:
    shard, index = scored.places[item.row].tolist()
    probabilities, label = scored.probabilities[item.row], scored.labels[item.row]
    place = (scored.splits[item.row], files[shard].name, index)
    names = (scored.classes[label], scored.classes[int(probabilities.argmax())])
    probability = float(probabilities[label])
    return item.image_id, item.file, *place, *names, f"{probability:.6g}", f"{1 - probability:.6g}"


def _counts(scored: ScoredRecords, chosen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns counts by split; `least_disagreement` is that of the last image exported, None if none was exported."""
    probabilities = label_probabilities(scored)
    predicted = scored.probabilities.argmax(axis=1)
    return {
        split: {
            "scored": int((scored.splits == split).sum()),
            "exported": len(rows),
            "least_disagreement": float(1 - probabilities[rows].max()) if len(rows) else None,
            "predicted_otherwise": int((predicted[rows] != scored.labels[rows]).sum()),
        }
        for split, rows in chosen.items()
    }


# Answers, in the sheets or of a plate page

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
    export = store.read_json(f"{folder}{slash}{ABOUT}")
    return images, tuple(export.get("classes", labels.CLASSES))


Records = tuple[dict[int, ExportedImage], tuple[str, ...], dict[str, list[int]]]


def read_records(sheets: Sequence[str], data: Sequence[str]) -> Records:
    """Returns the records of `data` that have the images of plate pages' sheets, by id; the classes; ids by digest.

    The classes are MARCO's four and the labels of the records. Raises `InputError` if no record has any of the images.
    """
    fix = "give a sheet that a plate page saved, or --key for one of `marco relabel export`"
    lines = [line for sheet in sheets for line in overlay.read_lines(sheet, ("image", "filename", "label"), fix)]
    predicted = {line.cells["image"]: line.cells.get("predicted", "") for line in lines}
    records = records_of_images(shards.find_shards(data), predicted)
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
