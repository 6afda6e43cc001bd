"""A CSV of results and, beside it, one of the files that gave none; both appear only when all is done."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Write = Callable[[Sequence[Any]], Any]


def errors_path(output: Path) -> Path:
    """Returns where the files that gave no result are listed: `scores.errors.csv` beside `scores.csv`."""
    return output.with_suffix(".errors.csv")


@contextlib.contextmanager
def result_tables(output: Path, columns: Sequence[str]) -> Iterator[tuple[Write, Write]]:
    """Yields two functions that write a row: of `columns` into `output`, and `(path, reason)` into `errors_path`.

    Both files are written aside and renamed at the end; where nothing failed there is no second one afterwards.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    errors = errors_path(output)
    aside, errors_aside = (path.with_name(f".{path.name}.partial") for path in (output, errors))
    with aside.open("w", newline="") as file, errors_aside.open("w", newline="") as errors_file:
        results, failures = csv.writer(file), csv.writer(errors_file)
        results.writerow(columns)
        failures.writerow(("path", "reason"))
        after_header = errors_file.tell()
        yield results.writerow, failures.writerow
        failed = errors_file.tell() > after_header
    aside.replace(output)
    if failed:
        errors_aside.replace(errors)
    else:
        errors_aside.unlink()
        errors.unlink(missing_ok=True)
