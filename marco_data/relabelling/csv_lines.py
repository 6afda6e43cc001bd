"""CSV files that people edited: read with their line numbers, whatever a spreadsheet made of them."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from marco_data.files import exists, read_bytes
from marco_model.errors import InputError


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
