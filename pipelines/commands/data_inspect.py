"""`marco data inspect`: what a set holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marco_model.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from marco_data.inspection import Counts, Inspection


def inspect(
    paths: Annotated[
        list[str], typer.Argument(help="Shards, folders of them, or what `marco data ingest` wrote.", metavar="PATH")
    ],
    contact_sheet: Annotated[Path | None, typer.Option(help="Write examples of each class to this PNG.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Images of each class on the sheet.")] = 6,
    raw_labels: Annotated[
        bool, typer.Option("--raw-labels", help="List the raw labels too, with the classes that they are in.")
    ] = False,
) -> None:
    """Count a set's images by class, institution, imager and size, and explain the quarantine of an ingest.

    Example: marco data inspect --contact-sheet sheet.png runs/checked
    """
    from rich.console import Console

    from marco_data.inspection import read_quarantine

    console = Console(highlight=False)
    quarantines = {path: held for path in paths if (held := read_quarantine(path)) is not None}
    found = _inspected(paths, samples if contact_sheet else 0, len(quarantines) == len(paths))
    if found is not None:
        console.print(f"{found.records} images in {found.shards} shards")
        if found.unreadable:
            console.print(f"{found.unreadable} records cannot be read; `marco data ingest` says why")
        for table in (_classes(found), _imagers(found), _sizes(found)):
            console.print(table)
        if raw_labels:
            console.print(_by_split("Raw labels", ("number", "raw label", "class"), found.raw_labels))
        if contact_sheet:
            from marco_data.contact_sheet import write_contact_sheet

            write_contact_sheet(contact_sheet, found.samples)
            console.print(f"examples of each class in {contact_sheet}")
    for path, entries in quarantines.items():
        console.print(_quarantine(path, entries) if entries else f"the quarantine of {path} is empty")


def _inspected(paths: list[str], samples: int, all_have_quarantines: bool) -> Inspection | None:
    from marco_data.inspection import inspect_shards

    try:
        return inspect_shards(paths, samples)
    except InputError:
        if not all_have_quarantines:
            raise
        # An ingest that was given up leaves its quarantine and no shards.
        return None


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        counts = column in ("train", "eval", "unknown", "all", "records")
        table.add_column(column, justify="right" if counts else "left", overflow="fold")
    return table


def _by_split(title: str, names: tuple[str, ...], counts: Counts) -> Table:
    """A table of counts: keys are a split and the names; most frequent first, the sum last."""
    splits = [split for split in ("train", "eval", "unknown") if any(key[0] == split for key in counts)]
    table = _table(title, *names, *splits, "all")
    totals: dict[tuple[str, ...], int] = {}
    for key, count in counts.items():
        totals[key[1:]] = totals.get(key[1:], 0) + count
    for key, total in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(*key, *(str(counts.get((split, *key), 0)) for split in splits), str(total))
    table.add_section()
    sums = [sum(count for key, count in counts.items() if key[0] == split) for split in splits]
    table.add_row("all", *[""] * (len(names) - 1), *map(str, sums), str(sum(sums)))
    return table


def _classes(found: Inspection) -> Table:
    return _by_split("Classes", ("class",), found.classes)


def _imagers(found: Inspection) -> Table:
    return _by_split("Institutions and imagers", ("institution", "imager"), found.imagers)


def _sizes(found: Inspection) -> Table:
    return _by_split("Sizes", ("pixels",), found.sizes)


def _quarantine(path: str, entries: dict[str, list[dict[str, str]]]) -> Table:
    from marco_data.reasons import REASONS

    table = _table(f"Quarantine of {path}", "reason", "records", "what it means", "for instance")
    for reason, rows in entries.items():
        first = rows[0]
        instance = f"{first['shard']}, record {first['index']}: {first['detail']}"
        table.add_row(reason, str(len(rows)), REASONS.get(reason, ""), instance)
    table.add_section()
    table.add_row("all", str(sum(map(len, entries.values()))), "", "")
    return table
