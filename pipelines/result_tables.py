"""A CSV of results and, beside it, one of the files that gave none; both appear only when all is done."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, TextIO

from marco_data.file_names import as_text

Write = Callable[[Sequence[Any]], Any]


def errors_path(output: Path) -> Path:
    """Returns where the files that gave no result are listed: `scores.errors.csv` beside `scores.csv`."""
    return output.with_suffix(".errors.csv")


@contextlib.contextmanager
def result_tables(output: Path, columns: Sequence[str]) -> Iterator[tuple[Write, Write]]:
    """Yields two functions that write a row: of `columns` into `output`, and `(path, reason)` into `errors_path`.

    Both files are written aside and renamed at the end; where nothing failed there is no second one afterwards. They
    are UTF-8 whatever the names of files are: see `as_text`.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    errors = errors_path(output)
    aside, errors_aside = (path.with_name(f".{path.name}.partial") for path in (output, errors))
    with _opened(aside) as file, _opened(errors_aside) as errors_file:
        write, write_failure = _row_writer(file), _row_writer(errors_file)
        write(columns)
        write_failure(("path", "reason"))
        after_header = errors_file.tell()
        yield write, write_failure
        failed = errors_file.tell() > after_header
    aside.replace(output)
    if failed:
        errors_aside.replace(errors)
    else:
        errors_aside.unlink()
        errors.unlink(missing_ok=True)


def _opened(path: Path) -> TextIO:
    return path.open("w", newline="", encoding="utf-8")


def _row_writer(file: TextIO) -> Write:
    rows = csv.writer(file)
    return lambda row: rows.writerow([as_text(cell) if isinstance(cell, (str, PurePath)) else cell for cell in row])
