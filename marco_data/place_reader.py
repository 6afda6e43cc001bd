"""The places of a set's files: by `marco_data.places`, or by what `--names` says of files that are named otherwise.

That is a regular expression with named groups, which is searched for in each file's path, or a CSV file with a column
`path` (or `filename`) and columns of the same names: plate, well, drop, inspection, date, light.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from marco_data import name_tables, places
from marco_model import errors

PARTS = ("plate", "well", "drop", "inspection", "date", "light")
_PATHS = ("path", "filename")


def reader(paths: Iterable[str | Path], names: str = "") -> places.PlaceOf:
    """Returns the function that reads the places of the files of a set, whose `paths` are these.

    Relative paths count from the working folder, so that its own name may be a plate's. A number of a well in
    RockMaker's storage is read by the smallest plate, of 96 wells or more, that holds all wells of the plate.
    `names`: a regular expression or a CSV file, see above; images that it does not name have no place. Raises
    `InputError` if it can be neither, and if it names none of `paths`.
    """
    if names:
        by_names = _from_table(Path(names)) if names.lower().endswith(".csv") else _from_expression(names)
        if not any(by_names(path).plate or by_names(path).well for path in paths):
            raise errors.InputError(f"--names {names} names none of the images; compare it with their paths")
        return by_names
    wells: dict[str, int] = {}
    for path in paths:
        plate, number = places.storage_well(_absolute(path))
        wells[plate] = max(wells.get(plate, 0), number)

    def read(path: str | Path) -> places.Place:
        absolute = _absolute(path)
        return places.place_of(absolute, wells.get(places.storage_well(absolute)[0], 0))

    return read


def _absolute(path: str | Path) -> str:
    text = str(path)
    return text if "://" in text else os.path.normpath(Path(path).absolute())


def _from_expression(text: str) -> places.PlaceOf:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise errors.InputError(f"--names {text} is not a regular expression: {error}") from None
    _check(expression.groupindex, f"--names {text} has", "named groups, such as (?P<plate>[^_]+)_(?P<well>[A-H][0-9]+)")

    def read(path: str | Path) -> places.Place:
        match = expression.search(str(path).replace("\\", "/"))
        return places.from_parts(path, match.groupdict()) if match else places.Place()

    return read


def _check(names: Iterable[str], what: str, form: str) -> None:
    unknown = [name for name in names if name not in PARTS]
    if unknown or not {"plate", "well"} & set(names):
        problem = f"an unknown part {unknown[0]!r}" if unknown else "neither plate nor well"
        raise errors.InputError(f"{what} {problem}; give {form}, of {', '.join(PARTS)}")


def _from_table(file: Path) -> places.PlaceOf:
    header, rows = name_tables.read_cells(name_tables.read_csv_text(file))
    path_column = next((name for name in _PATHS if name in header), "")
    if not path_column:
        raise errors.InputError(f"--names {file} has no column path; give path,plate,well,…, of {', '.join(PARTS)}")
    _check([name for name in header if name in PARTS], f"--names {file} has", "columns")
    by_path: dict[str, Mapping[str, str]] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise errors.InputError(f"{file}, line {line}: {len(cells)} cells, the header has {len(header)}")
        row = dict(zip(header, cells, strict=True))
        path = _absolute(file.parent / row[path_column].replace("\\", "/"))
        if path in by_path:
            raise errors.InputError(f"{file}, line {line}: {row[path_column]!r} is listed twice; keep one of its lines")
        by_path[path] = {name: row[name] for name in PARTS if name in row}

    def read(path: str | Path) -> places.Place:
        row = by_path.get(_absolute(path))
        return places.from_parts(path, row) if row else places.Place()

    return read
