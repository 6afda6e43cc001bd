"""`sources.csv`: which number in `image/class/source` stands for which institution."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from marco_data.files import exists, read_bytes
from marco_data.institutions import INSTITUTIONS
from marco_model.errors import InputError

FILE_NAME = "sources.csv"
HEADER = ("id", "name")
TABLE_I: dict[int, str] = dict(enumerate(INSTITUTIONS))


def parse_sources(text: str, origin: str = FILE_NAME) -> dict[int, str]:
    """Returns institution by source number, from lines of a number and a name in either order; a header is optional.

    Lines of a name alone are numbered from 0. Raises `InputError` where a line is neither, or a number comes twice.
    """
    rows = [[cell.strip() for cell in row if cell.strip()] for row in csv.reader(io.StringIO(text.lstrip("\ufeff")))]
    rows = [row for row in rows if row]
    numbered = any(cell.isdigit() for row in rows for cell in row)
    if (
        rows
        and not any(cell.isdigit() for cell in rows[0])
        and (numbered or rows[0][0].lower() in (*HEADER, "institution"))
    ):
        rows = rows[1:]
    if not numbered:
        return {number: row[0] for number, row in enumerate(rows)}
    sources: dict[int, str] = {}
    for row in rows:
        numbers = [cell for cell in row if cell.isdigit()]
        names = [cell for cell in row if not cell.isdigit()]
        if len(numbers) != 1 or not names:
            raise InputError(f"{origin}: expected a number and a name in each line, found {','.join(row)!r}")
        if int(numbers[0]) in sources:
            raise InputError(f"{origin}: source {numbers[0]} is listed twice; give each its own number")
        sources[int(numbers[0])] = names[0]
    return sources


def find_sources(paths: Iterable[str], shards: Iterable[str]) -> dict[int, str] | None:
    """Returns the institutions of the nearest `sources.csv`, or None.

    It is looked for in the folders among `paths`, then beside the files `shards`, then in the folders above these.
    """
    beside = list(dict.fromkeys(_parent(shard) for shard in shards))
    for folder in dict.fromkeys([*paths, *beside, *(_parent(folder) for folder in beside)]):
        path = f"{folder.rstrip('/')}/{FILE_NAME}"
        if exists(path):
            return parse_sources(read_bytes(path).decode("utf-8"), path)
    return None


def _parent(path: str) -> str:
    return path.rsplit("/", 1)[0] if "/" in path else "."


def write_sources(folder: Path, sources: Mapping[int, str] = TABLE_I) -> None:
    """Writes `folder/sources.csv`."""
    with (folder / FILE_NAME).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(sorted(sources.items()))
