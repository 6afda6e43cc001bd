"""The overlay: what experts say an image shows, in the place of the class that its record came with.

A CSV with the header `image_id,label,rater,date` (docs/relabelling.md). An image may be listed again when it was looked
at again: the newest date counts.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from marco_model.errors import InputError
from marco_model.labels import CLASSES, LabelScheme, key
from marco_model.store import exists, read_bytes


class Line(NamedTuple):
    """A row of a table: where it stands, for messages, and its cells by column, stripped."""

    where: str
    cells: dict[str, str]


def read_lines(path: str, columns: Sequence[str], mend: str) -> list[Line]:
    """Returns the rows of a CSV, local or `gs://`; columns beyond `columns` are kept, empty rows are left out.

    Commas, semicolons and tabs part the columns, as spreadsheets have it; UTF-8, with or without a mark. Raises
    `InputError`, which ends in `mend`, where there is no such file, or a column is missing.
    """
    if not exists(path):
        raise InputError(f"there is no file {path!r}; {mend}")
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read as text in UTF-8 ({error}); {mend}") from error
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    header = [name.strip().casefold() for name in next(reader, [])]
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; its first line is {head.strip()[:80]!r}; {mend}")
    name = path.rsplit("/", 1)[-1]
    lines = []
    for row in reader:
        if any(cell.strip() for cell in row):
            cells = {key: cell.strip() for key, cell in zip(header, row, strict=False)}
            lines.append(Line(f"{name}, line {reader.line_num}", {**dict.fromkeys(header, ""), **cells}))
    return lines


def image_id(line: Line) -> int:
    """Returns the row's image id; raises `InputError` where it is no whole number."""
    text = line.cells["image_id"]
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"{line.where}: image_id is {text!r}; give the whole number of the record's image/id"
        ) from None


def date(line: Line) -> str:
    """Returns the row's date, YYYY-MM-DD; raises `InputError` where it is none."""
    text = line.cells["date"]
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d").date().isoformat()
    except ValueError:
        raise InputError(f"{line.where}: date is {text!r}; write it as 2026-11-26") from None


def write_lines(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV aside and gives it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    aside.replace(path)


HEADER = ("image_id", "label", "rater", "date")
_MEND = f"give the overlay that `marco relabel merge` wrote, a CSV with the header {','.join(HEADER)}"


class Answer(NamedTuple):
    """What is said of an image, by whom and when (YYYY-MM-DD); `where` is the line that says so."""

    label: str
    rater: str
    date: str
    where: str = ""


def read_overlay(path: str) -> dict[int, Answer]:
    """Returns the newest answer for each image id; raises `InputError` as `read_answers` and `newest_answers` do."""
    return newest_answers(read_answers(path))


def read_answers(path: str) -> list[tuple[int, Answer]]:
    """Returns all lines of an overlay, local or `gs://`, in their order: image id and answer.

    Raises `InputError`, which names the line, for an id or a date that is none, and an empty label or rater.
    """
    answers = []
    for line in read_lines(path, HEADER, _MEND):
        number = image_id(line)
        for name in ("label", "rater"):
            if not line.cells[name]:
                raise InputError(f"{line.where}: {name} is empty for image {number}; fill it in or remove the line")
        answers.append((number, Answer(line.cells["label"], line.cells["rater"], date(line), line.where)))
    return answers


def newest_answers(answers: Iterable[tuple[int, Answer]]) -> dict[int, Answer]:
    """Returns the newest answer for each image id; raises `InputError`, which names both lines, for two of one date."""
    newest: dict[int, Answer] = {}
    for number, answer in answers:
        held = newest.get(number)
        if held and held.date == answer.date and key(held.label) != key(answer.label):
            raise InputError(
                f"{answer.where}: image {number} is {answer.label}, and {held.label} on the same date in {held.where}; "
                "remove one of the lines"
            )
        if held is None or answer.date > held.date:
            newest[number] = answer
    return newest


def check_labels(overlay: Mapping[int, Answer], scheme: LabelScheme) -> None:
    """Raises `InputError`, which names the line, for a label of which the scheme does not know a class.

    A label is what the scheme looks up (`LabelScheme.index_of`): one of its classes, or an entry of its table; of a
    scheme that takes the class from a record's class also one of MARCO's four.
    """
    known = {key(name): name for name in (*scheme.classes, *(CLASSES if scheme.source == "class" else ()))}
    entries = set(map(key, scheme.table))
    for answer in overlay.values():
        if key(answer.label) not in known and key(answer.label) not in entries:
            raise InputError(
                f"{answer.where}: label {answer.label!r} is none of {', '.join(known.values())}, the classes of the "
                f"label scheme {scheme.name!r}; mend the label, or train with the scheme that it is of"
            )


def write_overlay(path: Path, answers: Iterable[tuple[int, Answer]]) -> None:
    """Writes an overlay, aside and renamed."""
    rows = ((number, answer.label, answer.rater, answer.date) for number, answer in answers)
    write_lines(path, HEADER, rows)


def overlay_fingerprint(path: str) -> str:
    """Returns a hash of the overlay's content; raises `InputError` where there is no such file."""
    if not exists(path):
        raise InputError(f"there is no overlay {path!r}; {_MEND}")
    return hashlib.blake2b(read_bytes(path), digest_size=16).hexdigest()
