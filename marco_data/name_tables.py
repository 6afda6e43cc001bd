"""The small CSV tables beside a set's shards: which number stands for which name."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from marco_model.errors import InputError
from marco_model.store import exists, read_bytes

HEADER = ("id", "name")
_HEADS = (*HEADER, "institution", "label")


def parse_table(text: str, origin: str) -> dict[int, str]:
    """Returns name by number, from lines of a number and a name in either order; a header is optional.

    Lines of a name alone are numbered from 0. Raises `InputError` where a line is neither, or a number comes twice.
    """
    rows = [[cell.strip() for cell in row if cell.strip()] for row in csv.reader(io.StringIO(text.lstrip("\ufeff")))]
    rows = [row for row in rows if row]
    numbered = any(cell.isdigit() for row in rows for cell in row)
    if rows and not any(cell.isdigit() for cell in rows[0]) and (numbered or rows[0][0].lower() in _HEADS):
        rows = rows[1:]
    if not numbered:
        return {number: row[0] for number, row in enumerate(rows)}
    table: dict[int, str] = {}
    for row in rows:
        numbers = [cell for cell in row if cell.isdigit()]
        names = [cell for cell in row if not cell.isdigit()]
        if len(numbers) != 1 or not names:
            raise InputError(f"{origin}: expected a number and a name in each line, found {','.join(row)!r}")
        if int(numbers[0]) in table:
            raise InputError(f"{origin}: number {numbers[0]} is listed twice; give each name its own number")
        table[int(numbers[0])] = names[0]
    return table


def find_table(file_name: str, paths: Iterable[str], shards: Iterable[str]) -> dict[int, str] | None:
    """Returns the nearest table of that name, or None; see `table_path`."""
    path = table_path(file_name, paths, shards)
    return None if path is None else parse_table(read_bytes(path).decode("utf-8"), path)


def table_path(file_name: str, paths: Iterable[str], shards: Iterable[str]) -> str | None:
    """Returns where the nearest table of that name lies, or None.

    It is looked for in the folders among `paths`, then beside the files `shards`, then in the folders above these.
    """
    beside = list(dict.fromkeys(_parent(shard) for shard in shards))
    for folder in dict.fromkeys([*paths, *beside, *(_parent(folder) for folder in beside)]):
        path = f"{folder.rstrip('/')}/{file_name}"
        if exists(path):
            return path
    return None


def _parent(path: str) -> str:
    return path.rsplit("/", 1)[0] if "/" in path else "."


INSTITUTIONS: tuple[str, ...] = ("Bristol-Myers Squibb", "CSIRO", "HWMRI", "GlaxoSmithKline", "Merck")

FORMULATRIX = "Formulatrix Rock Imager"
MINSTREL = "Rigaku Minstrel"
HWMRI_HOME = "HWMRI home system"
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class ImagerRule:
    """Images of `institution` whose file name matches the regular expression `pattern` whole come from `imager`."""

    institution: str
    imager: str
    pattern: str = ".*"


IMAGER_RULES: tuple[ImagerRule, ...] = (
    ImagerRule("Bristol-Myers Squibb", FORMULATRIX),
    ImagerRule("CSIRO", FORMULATRIX, r".*_ImagerDefaults_.*"),
    ImagerRule("CSIRO", MINSTREL),
    ImagerRule("HWMRI", HWMRI_HOME),
    ImagerRule("GlaxoSmithKline", FORMULATRIX),
    ImagerRule("Merck", FORMULATRIX),
)


def imager_of(institution: str, filename: str, rules: Sequence[ImagerRule] = IMAGER_RULES) -> str:
    """Returns the imager of the first rule that fits, or `unknown`."""
    for rule in rules:
        if rule.institution == institution and re.fullmatch(rule.pattern, filename):
            return rule.imager
    return UNKNOWN


SOURCES_FILE = "sources.csv"
TABLE_I: dict[int, str] = dict(enumerate(INSTITUTIONS))


def parse_sources(text: str, origin: str = SOURCES_FILE) -> dict[int, str]:
    """Returns institution by source number, as `parse_table` does."""
    return parse_table(text, origin)


def find_sources(paths: Iterable[str], shards: Iterable[str]) -> dict[int, str] | None:
    """Returns the institutions of the nearest `sources.csv`, as `find_table` finds it, or None."""
    return find_table(SOURCES_FILE, paths, shards)


def write_sources(folder: Path, sources: Mapping[int, str] = TABLE_I) -> None:
    """Writes `folder/sources.csv`."""
    with (folder / SOURCES_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(sorted(sources.items()))


RAW_LABELS_FILE = "labels-raw.csv"


def find_raw_labels(paths: Iterable[str], shards: Iterable[str]) -> dict[int, str] | None:
    """Returns the names of the raw labels from the nearest `labels-raw.csv`, as `find_table` finds it, or None."""
    return find_table(RAW_LABELS_FILE, paths, shards)
