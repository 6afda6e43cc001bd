"""`labels-raw.csv`: which number in `image/class/raw` stands for which of the sources' own labels."""

from __future__ import annotations

from collections.abc import Iterable

from marco_data.name_tables import find_table

FILE_NAME = "labels-raw.csv"


def find_raw_labels(paths: Iterable[str], shards: Iterable[str]) -> dict[int, str] | None:
    """Returns the names of the raw labels from the nearest `labels-raw.csv`, as `find_table` finds it, or None."""
    return find_table(FILE_NAME, paths, shards)
