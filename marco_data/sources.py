"""`sources.csv`: which number in `image/class/source` stands for which institution."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from marco_data.institutions import INSTITUTIONS
from marco_data.name_tables import HEADER, find_table, parse_table

FILE_NAME = "sources.csv"
TABLE_I: dict[int, str] = dict(enumerate(INSTITUTIONS))


def parse_sources(text: str, origin: str = FILE_NAME) -> dict[int, str]:
    """Returns institution by source number, as `parse_table` does."""
    return parse_table(text, origin)


def find_sources(paths: Iterable[str], shards: Iterable[str]) -> dict[int, str] | None:
    """Returns the institutions of the nearest `sources.csv`, as `find_table` finds it, or None."""
    return find_table(FILE_NAME, paths, shards)


def write_sources(folder: Path, sources: Mapping[int, str] = TABLE_I) -> None:
    """Writes `folder/sources.csv`."""
    with (folder / FILE_NAME).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(sorted(sources.items()))
