"""Where a well lies on its plate, and which plate it is."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple


class Format(NamedTuple):
    """A plate's rows and columns."""

    rows: int
    columns: int


FORMATS = (Format(4, 6), Format(6, 8), Format(8, 12), Format(16, 24), Format(32, 48))
"""Plates of 24, 48, 96, 384 and 1,536 wells, as ANSI SLAS 4 spaces them."""
USUAL = Format(8, 12)
"""Taken where few wells were seen."""


class Position(NamedTuple):
    """A well's row and column, both counted from 0."""

    row: int
    column: int


def position(well: str) -> Position | None:
    """Returns where a well such as `G6`, `g06` or `AF48` lies; None for what names none of a 1,536-well plate.

    Four digits are HWMRI's number of a well of 1,536, from `0001`, which is counted here along the rows.
    """
    rows, columns = FORMATS[-1]
    if re.fullmatch(r"[0-9]{4}", well):
        number = int(well) - 1
        return Position(*divmod(number, columns)) if 0 <= number < rows * columns else None
    match = re.fullmatch(r"([A-Z]|A[A-F])([0-9]{1,2})", well.upper())
    if not match or not 1 <= int(match[2]) <= columns:
        return None
    return Position(_row_names(rows).index(match[1]), int(match[2]) - 1)


def row_names(plate: Format) -> list[str]:
    """Returns `A`, `B` … `Z`, `AA` …, one for each row."""
    return _row_names(plate.rows)


def well_name(where: Position) -> str:
    """Returns a position as `G6`."""
    return f"{_row_names(where.row + 1)[-1]}{where.column + 1}"


def plate_format(seen: Collection[Position]) -> Format:
    """Returns the plate that wells come from: the smallest that has them all, and of which half was seen.

    Where less was, it is the smallest of 96 wells or more that has them all: four rows of a 96-well plate would
    otherwise pass for a whole smaller one.
    """
    wells = set(seen)
    rows = max((well.row for well in wells), default=0) + 1
    columns = max((well.column for well in wells), default=0) + 1
    fitting = [plate for plate in FORMATS if rows <= plate.rows and columns <= plate.columns]
    for plate in fitting:
        if plate.rows * plate.columns >= USUAL.rows * USUAL.columns or 2 * len(wells) >= plate.rows * plate.columns:
            return plate
    raise ValueError(f"row {rows} or column {columns} is on no plate of {FORMATS[-1]}")


def _row_names(count: int) -> list[str]:
    letters = [chr(ord("A") + index) for index in range(26)]
    return [*letters, *(f"A{letter}" for letter in letters)][:count]
