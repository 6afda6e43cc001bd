"""The overlay: labels by experts, which replace the classes that records came with.

It is a CSV file with the header `image_id,label,rater,date` (docs/relabelling.md). An image may be listed again after
another look: the newest date counts. `read_lines` reads the sheets of raters too.
"""

import contextlib
import datetime
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from marco_data import name_tables
from marco_model import errors, labels, store

HEADER = ("image_id", "label", "rater", "date")
_FIX = f"give the overlay that `marco relabel merge` wrote, a CSV with the header {','.join(HEADER)}"


class Line(NamedTuple):
    """A row of a CSV file: its file and line for messages, and its cells by column, stripped."""

    where: str
    cells: dict[str, str]


def read_lines(path: str, columns: Sequence[str], fix: str) -> list[Line]:
    """Returns the rows of a CSV file, local or `gs://`; columns beyond `columns` are kept, empty rows are skipped.

    The file is as `name_tables.decode_csv` and `read_cells` say. Raises `InputError`, which ends in `fix`, if the file
    does not exist or lacks a column.
    """
    message = f"{path} cannot be read as text in UTF-8 ({{}}); {fix}, saved in Excel as CSV UTF-8"
    with errors.translated(errors.InputError, message, UnicodeDecodeError, OSError):
        text = name_tables.decode_csv(store.read_bytes(path, missing=f"there is no file {path!r}; {fix}"))
    header, rows = name_tables.read_cells(text)
    missing = [name for name in columns if name not in header]
    if missing:
        first = text.partition("\n")[0].strip()[:80]
        raise errors.InputError(f"{path} has no column {', '.join(missing)}; its first line is {first!r}; {fix}")
    name = path.rsplit("/", 1)[-1]
    return [
        Line(f"{name}, line {line}", {**dict.fromkeys(header, ""), **dict(zip(header, cells, strict=False))})
        for line, cells in rows
    ]


def image_id(line: Line) -> int:
    """Returns the row's image id; raises `InputError` if it is not a whole number."""
    text = line.cells["image_id"]
    message = (
        f"{line.where}: image_id is {text!r}; give the whole number of the record's image/id, or the file that was not "
        "saved by a spreadsheet"
    )
    with errors.translated(errors.InputError, message, ValueError):
        return int(text)


_DATE_FORMS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y")
_TIME_OF_DAY = re.compile(r"[ T]+[0-9]{1,2}:[0-9]{2}(:[0-9.]+)?( ?[AP]M)?Z?$", re.IGNORECASE)
_SLASHED = re.compile(r"([0-9]{1,2})[/-]([0-9]{1,2})[/-]([0-9]{4})")


def day_first(lines: Iterable[Line]) -> bool | None:
    """Returns whether dates such as 03/04/2026 begin with the day in a file; None if none of its dates shows it."""
    matches = (_SLASHED.match(line.cells.get("date", "")) for line in lines)
    orders = {int(match[1]) > 12 for match in matches if match and (int(match[1]) > 12) != (int(match[2]) > 12)}
    return orders.pop() if len(orders) == 1 else None


def date(line: Line, day_first: bool | None = None) -> str:
    """Returns the row's date, YYYY-MM-DD; raises `InputError` if it is not a date, or could be two.

    Spreadsheets write dates as their country does: 11/27/2026, 27/11/2026 and 27.11.2026 are read, a time of day is
    dropped. `day_first`: see the function `day_first`.
    """
    text = line.cells["date"]
    plain = _TIME_OF_DAY.sub("", text.strip()).replace(",", "")
    if match := _SLASHED.fullmatch(plain):
        first, second, year = map(int, match.groups())
        if first > 12 or second > 12 or first == second:
            day_first = first > 12
        if day_first is None:
            raise errors.InputError(
                f"{line.where}: date is {text!r}, which may be {year}-{first:02}-{second:02} or "
                f"{year}-{second:02}-{first:02}; write it as 2026-11-26"
            )
        plain = f"{year}-{second:02}-{first:02}" if day_first else f"{year}-{first:02}-{second:02}"
    for form in _DATE_FORMS:
        with contextlib.suppress(ValueError):
            return datetime.datetime.strptime(plain, form).date().isoformat()
    raise errors.InputError(f"{line.where}: date is {text!r}; write it as 2026-11-26")


class Answer(NamedTuple):
    """The label that a rater gave an image, and the date (YYYY-MM-DD); `where` is the file and line it comes from."""

    label: str
    rater: str
    date: str
    where: str = ""


def image_digest(encoded: bytes) -> str:
    """Identifies an image by its content, in sheets that have no ids of records: `blake2b:` and 16 hexadecimal digits.

    `encoded` is what `marco_data.image_files.encoded_image` returns, which is also what a record has. The prefix keeps
    spreadsheets from reading a number.
    """
    return f"blake2b:{hashlib.blake2b(encoded, digest_size=8).hexdigest()}"


def read_overlay(path: str) -> dict[int, Answer]:
    """Returns the newest answer by image id; raises `InputError` as `read_answers` and `newest_answers` do."""
    return newest_answers(read_answers(path))


def read_answers(path: str) -> list[tuple[int, Answer]]:
    """Returns all lines of an overlay, local or `gs://`, in their order: image id and answer.

    Raises `InputError`, which names the line, for an invalid id or date and for an empty label or rater.
    """
    answers = []
    lines = read_lines(path, HEADER, _FIX)
    order = day_first(lines)
    for line in lines:
        number = image_id(line)
        for name in ("label", "rater"):
            if not line.cells[name]:
                raise errors.InputError(
                    f"{line.where}: {name} is empty for image {number}; fill it in or remove the line"
                )
        answers.append((number, Answer(line.cells["label"], line.cells["rater"], date(line, order), line.where)))
    name_tables.refuse_rounded_ids(dict(answers), path)
    return answers


def newest_answers(answers: Iterable[tuple[int, Answer]]) -> dict[int, Answer]:
    """Returns the newest answer by image id; raises `InputError`, which names both lines, for two labels on a date."""
    newest: dict[int, Answer] = {}
    for number, answer in answers:
        earlier = newest.get(number)
        if earlier and earlier.date == answer.date and labels.key(earlier.label) != labels.key(answer.label):
            raise errors.InputError(
                f"{answer.where}: image {number} is {answer.label}, and {earlier.label} on the same date in "
                f"{earlier.where}; remove one of the lines"
            )
        if earlier is None or answer.date > earlier.date:
            newest[number] = answer
    return newest


def check_labels(overlay: Mapping[int, Answer], scheme: labels.LabelScheme) -> None:
    """Raises `InputError`, which names the line, for a label that the scheme cannot look up (`LabelScheme.index_of`).

    It knows its classes and the entries of its table, and MARCO's four classes if it takes its own from these.
    """
    classes = (*scheme.classes, *(labels.CLASSES if scheme.source == "class" else ()))
    known = set(map(labels.key, (*classes, *scheme.table)))
    for answer in overlay.values():
        if labels.key(answer.label) not in known:
            names = {labels.key(name): name for name in classes}.values()
            raise errors.InputError(
                f"{answer.where}: label {answer.label!r} is not one of {', '.join(names)}, the classes of the "
                f"label scheme {scheme.name!r}; fix the label, or train with the scheme that it belongs to"
            )


def write_overlay(path: Path, answers: Iterable[tuple[int, Answer]]) -> None:
    """Writes an overlay, whole or not at all."""
    rows = ((number, answer.label, answer.rater, answer.date) for number, answer in answers)
    name_tables.write_csv(path, HEADER, rows)


def overlay_fingerprint(path: str) -> str:
    """Returns a hash of the overlay's content; raises `InputError` if there is no such file."""
    content = store.read_bytes(path, missing=f"there is no overlay {path!r}; {_FIX}")
    return hashlib.blake2b(content, digest_size=16).hexdigest()
