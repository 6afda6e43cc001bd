"""Rows of a table of scores as lines of its formats, and read back from them."""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from marco_data import name_tables
from marco_model import errors

Format = Literal["csv", "excel", "jsonl"]
Row = dict[str, Any]
"""Cells by column: text, floats for scores, ints for counts; empty text for what is not known."""

_SPREADSHEETS = (".xlsx", ".xls", ".ods")
_JSONL_ENDINGS = (".jsonl", ".ndjson")
_BOM = "\ufeff"


def format_of(output: Path | None, chosen: Format | None) -> Format:
    """Returns the format of a table: the chosen one, or else that of the file's ending.

    Raises `InputError` for the ending of a spreadsheet program's own format, which none of these is.
    """
    if output and output.suffix.lower() in _SPREADSHEETS:
        raise errors.InputError(f"{output} would be no spreadsheet; give a name in .csv, with --format excel for Excel")
    by_ending: Format = "jsonl" if output and output.suffix.lower() in _JSONL_ENDINGS else "csv"
    return chosen or by_ending


def line(format: Format, names: Sequence[str], cells: Mapping[str, Any]) -> str:
    """Returns a row as a line of the table; scores have seven digits after the point."""
    if format == "jsonl":
        values = {name: _json_value(name, cells.get(name, "")) for name in names}
        return json.dumps(values, ensure_ascii=False) + "\n"
    return _csv_line(f"{cell:.7f}" if isinstance(cell := cells.get(name, ""), float) else cell for name in names)


def _json_value(name: str, cell: Any) -> Any:
    """Returns a cell as JSON has it: what is not known is null, and sizes are numbers."""
    if isinstance(cell, float):
        return round(cell, 7)
    return None if cell == "" else int(cell) if name == "bytes" else cell


def _known_cells(cells: Row) -> Row:
    return {name: "" if cell is None else cell for name, cell in cells.items()}


def _csv_line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    name_tables.write_rows(text, [cells], end="\r\n")
    return text.getvalue()


def header(format: Format, names: Sequence[str]) -> str:
    """Returns the beginning of a table, empty where rows name their columns."""
    return "" if format == "jsonl" else (_BOM if format == "excel" else "") + _csv_line(names)


def has_mark(path: Path) -> bool:
    """Returns whether a table on disk begins with a byte order mark, as `excel` does."""
    with path.open("rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def read_rows(path: Path, format: Format) -> tuple[list[str], Iterator[Row]]:
    """Returns the columns of a table on disk and its rows, also as a spreadsheet leaves it; cells are text or JSON's.

    A JSON Lines table has the columns of its first row. Raises `InputError` if it is not a table.
    """
    message = f"{path} cannot be read as a table of scores: {{}}; give another file"
    with errors.translated(errors.InputError, message, OSError, ValueError, RecursionError, csv.Error):
        text = path.read_bytes().decode("utf-8-sig")
        if format == "jsonl":
            rows = [json.loads(entry, object_hook=_known_cells) for entry in text.split("\n") if entry]
            if any(not isinstance(cells, dict) or not cells or cells.keys() != rows[0].keys() for cells in rows):
                raise errors.InputError(f"{path} has a row without the columns of its first; give another file")
            return list(rows[0]) if rows else [], iter(rows)
        reader = name_tables.read_rows(text)
        names: list[str] = next(reader, [])
        lines = [cells for cells in reader if any(cells)]
    if wrong := next((cells for cells in lines if len(cells) != len(names)), None):
        raise errors.InputError(f"{path}: {len(wrong)} cells in the row of {wrong[0]!r}, the header has {len(names)}")
    return names, (dict(zip(names, cells, strict=True)) for cells in lines)
