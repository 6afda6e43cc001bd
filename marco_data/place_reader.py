"""The places of a set's files: by `marco_data.places`, or by what `--names` says of files that are named otherwise.

That is a regular expression with named groups, which is searched for in each file's path, or a CSV file with a column
`path` (or `filename`) and columns of the same names: plate, well, drop, inspection, date, light.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from marco_data import name_tables, places
from marco_model import errors, store

PARTS = ("plate", "well", "drop", "inspection", "date", "light")
_PATHS = ("path", "filename")
_REASONS = 10
"""Most cells that a message names."""


def reader(paths: Iterable[str | Path], names: str = "") -> places.PlaceOf:
    """Returns the function that reads the places of the files of a set, whose `paths` are these.

    Relative paths count from the working folder, so that its own name may be a plate's. A number of a well in
    RockMaker's storage is read by the smallest plate, of 96 wells or more, that holds all wells of the plate.
    `names`: a regular expression or a CSV file, see above; images that it does not name have no place. Raises
    `InputError` if it can be neither, and if it names none of `paths`.
    """
    if names:
        named = NamedPlaces(names)
        if not any(place.plate or place.well for place in map(named, paths)):
            where = ", which count from the file's own folder" if is_table(names) else ""
            raise errors.InputError(f"--names {names} names none of the images; compare it with their paths{where}")
        return named
    wells: dict[str, int] = {}
    for path in paths:
        plate, number = places.storage_well(_absolute(path))
        wells[plate] = max(wells.get(plate, 0), number)

    def read(path: str | Path) -> places.Place:
        absolute = _absolute(path)
        return places.place_of(absolute, wells.get(places.storage_well(absolute)[0], 0))

    return read


def unused_rows(place_of: places.PlaceOf, paths: Iterable[str | Path]) -> str:
    """Returns in words how many rows of a `--names` CSV are for files that are not among `paths`; empty if none is."""
    unused = place_of.unused(paths) if isinstance(place_of, NamedPlaces) else 0
    return f"rows of --names for files that are not among the images: {unused}" if unused else ""


def _absolute(path: str | Path) -> str:
    text = str(path)
    return text if "://" in text else os.path.normpath(Path(path).absolute())


class NamedPlaces:
    """The places that a regular expression or a CSV file gives paths, see above; it can be sent to other processes.

    Raises `InputError` if `names` can be neither, and if a well, date or inspection of a CSV file cannot be read. The
    file may lie on `gs://`.
    """

    def __init__(self, names: str) -> None:
        self._expression: re.Pattern[str] | None = None
        self._rows: dict[str, dict[str, str]] = {}
        if is_table(names):
            self._rows = _read_table(names)
        else:
            self._expression = _expression(names)
        by_name: dict[str, list[dict[str, str]]] = {}
        for path, row in self._rows.items():
            by_name.setdefault(path.rsplit("/", 1)[-1], []).append(row)
        self._by_name = {name: rows[0] for name, rows in by_name.items() if all(row == rows[0] for row in rows)}

    def __call__(self, path: str | Path) -> places.Place:
        """Returns the place of a file; an empty one if it is not named."""
        return self._place(path, self._rows.get(_absolute(path)))

    def of_record(self, filename: str) -> places.Place:
        """Returns the place of a record, of whose file only the name is known: rows of one name must agree."""
        return self._place(filename, self._by_name.get(filename.replace("\\", "/").rsplit("/", 1)[-1]))

    def unused(self, paths: Iterable[str | Path]) -> int:
        """Returns how many rows of the CSV file name none of `paths`."""
        return len(self._rows.keys() - set(map(_absolute, paths)))

    def _place(self, path: str | Path, row: Mapping[str, str | None] | None) -> places.Place:
        if self._expression:
            match = self._expression.search(str(path).replace("\\", "/"))
            row = match.groupdict() if match else None
        return places.from_parts(path, row) if row else places.Place()


def is_table(names: str) -> bool:
    """Returns whether `--names` gives a file."""
    return names.lower().endswith(".csv")


def content_digest(names: str) -> str:
    """Returns a digest of the file that `--names` gives; empty for an expression, and for one that cannot be read."""
    if not is_table(names) or not store.exists(names):
        return ""
    return hashlib.blake2b(store.read_bytes(names), digest_size=16).hexdigest()


def _expression(text: str) -> re.Pattern[str]:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise errors.InputError(f"--names {text} is not a regular expression: {error}") from None
    _check(expression.groupindex, f"--names {text} has", "named groups, such as (?P<plate>[^_]+)_(?P<well>[A-H][0-9]+)")
    return expression


def _check(names: Iterable[str], what: str, form: str) -> None:
    unknown = [name for name in names if name not in PARTS]
    if unknown or not {"plate", "well"} & set(names):
        problem = f"an unknown part {unknown[0]!r}" if unknown else "neither plate nor well"
        raise errors.InputError(f"{what} {problem}; give {form}, of {', '.join(PARTS)}")


def _read_table(file: str) -> dict[str, dict[str, str]]:
    """Returns the parts of each path of a CSV file, by absolute path."""
    header, rows = name_tables.read_cells(name_tables.read_csv_text(file))
    path_column = next((name for name in _PATHS if name in header), "")
    if not path_column:
        raise errors.InputError(f"--names {file} has no column path; give path,plate,well,…, of {', '.join(PARTS)}")
    _check([name for name in header if name in PARTS], f"--names {file} has", "columns")
    if repeated := next((name for name in (*_PATHS, *PARTS) if header.count(name) > 1), ""):
        raise errors.InputError(f"--names {file} has two columns {repeated}; keep one")
    folder = file.rpartition("/")[0] if store.is_remote(file) else str(Path(file).parent)
    by_path: dict[str, dict[str, str]] = {}
    unreadable: dict[tuple[str, str], list[int]] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise errors.InputError(f"{file}, line {line}: {len(cells)} cells, the header has {len(header)}")
        row = dict(zip(header, cells, strict=True))
        name = row[path_column].replace("\\", "/")
        path = _absolute(f"{folder}/{name}" if store.is_remote(file) else Path(folder) / name)
        if path in by_path:
            raise errors.InputError(f"{file}, line {line}: {row[path_column]!r} is listed twice; keep one of its lines")
        by_path[path] = {name: row[name] for name in PARTS if name in row}
        for name in places.unreadable(by_path[path]):
            unreadable.setdefault((name, row[name]), []).append(line)
    if unreadable:
        raise errors.InputError(f"{file}, {_unreadable(unreadable)}")
    return by_path


def _unreadable(cells: Mapping[tuple[str, str], Sequence[int]]) -> str:
    """Returns in words which cells of a column and a text cannot be read, by their lines, and what is expected."""
    reasons = []
    for (name, text), (first, *more) in list(cells.items())[:_REASONS]:
        reasons.append(f"line {first}{f' and {len(more)} more' if more else ''}: {name} is {text!r}")
    if len(cells) > _REASONS:
        reasons.append(f"{len(cells) - _REASONS} more values like these")
    expected = [places.EXPECTED[name] for name in dict.fromkeys(name for name, _ in cells)]
    return "; ".join([*reasons, f"expected {'; '.join(expected)}; an empty cell states nothing"])
