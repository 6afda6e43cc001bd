"""The folder that experts get, and the key that they don't: images without labels, sheets, a page to label them in."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marco_data.relabelling import csv_lines
from marco_data.relabelling.ranking import label_probabilities
from marco_data.relabelling.rater_page import write_page
from marco_data.relabelling.records import encoded_images
from marco_data.relabelling.scoring import Scored
from marco_data.shards import File
from marco_data.splits import hashed_draw
from marco_model.errors import InputError

RATERS, IMAGES, KEY, ABOUT, SKIPPED = "raters", "images", "key.csv", "export.json", "skipped.csv"
SHEET_HEADER = ("image_id", "file", "label", "rater", "date", "note")
KEY_HEADER = ("image_id", "file", "split", "shard", "index", "old_label", "predicted", "probability", "disagreement")
SKIPPED_HEADER = ("shard", "index", "reason")
_NAME = re.compile(r"[\w][\w .@-]*")


class Item(NamedTuple):
    """An image to look at: its row among the scored, and its file, named by its place in a shuffled order."""

    row: int
    image_id: int
    file: str


def check_raters(raters: Sequence[str]) -> None:
    """Raises `InputError` for names that can't be a file's, or that are alike."""
    for name in raters:
        if not _NAME.fullmatch(name):
            raise InputError(f"rater {name!r} cannot name a file; use letters, digits, spaces, '.', '@', '_' and '-'")
    if not raters or len({name.casefold() for name in raters}) < len(raters):
        raise InputError(f"raters are {', '.join(raters) or 'none'}; give each a name of its own")


def check_output(output: Path) -> None:
    """Raises `InputError` for a folder that holds something, and for a file."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{str(output)!r} is not empty; give a new folder")


def write_export(
    output: Path,
    shards: Sequence[File],
    scored: Scored,
    chosen: Mapping[str, np.ndarray],
    raters: Sequence[str],
    seed: int,
    skipped: Sequence[tuple[str, int, str]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the folder `output`, new or empty, aside and renamed, and returns what its `export.json` says.

    `raters/` is what experts get: `images/` as they are in the records, `index.html`, `sheet-NAME.csv`. Beside it, not
    for them: `key.csv`, `export.json` (`about`, classes, counts), and `skipped.csv` where records could not be scored.
    `chosen`: rows of `scored` by split. The order is drawn by `seed` and the image ids alone.
    """
    check_output(output)
    output = output.resolve()  # "." has no name, and so no place beside it.
    aside = output.with_name(f".{output.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / RATERS / IMAGES).mkdir(parents=True)
    items = _write_images(aside / RATERS, shards, scored, np.concatenate(list(chosen.values())), seed)
    write_page(aside / RATERS / "index.html", items, scored.classes, raters)
    for name in raters:
        rows = ((item.image_id, item.file, "", name, "", "") for item in items)
        csv_lines.write_lines(aside / RATERS / f"sheet-{name}.csv", SHEET_HEADER, rows)
    csv_lines.write_lines(aside / KEY, KEY_HEADER, (_key_row(item, shards, scored) for item in items))
    if skipped:
        csv_lines.write_lines(aside / SKIPPED, SKIPPED_HEADER, skipped)
    told = {**about, "classes": list(scored.classes), "skipped": len(skipped), "splits": _counts(scored, chosen)}
    (aside / ABOUT).write_text(json.dumps(told, indent=2) + "\n")
    _put_in_place(aside, output)
    return told


def _put_in_place(aside: Path, output: Path) -> None:
    """An empty folder is filled, not replaced: somebody may be in it, or a volume be mounted there."""
    if not output.exists():
        aside.rename(output)
        return
    for path in sorted(aside.iterdir()):
        shutil.move(path, output)
    aside.rmdir()


def _write_images(folder: Path, shards: Sequence[File], scored: Scored, rows: np.ndarray, seed: int) -> list[Item]:
    """Writes the images of `rows` below `folder` and returns them in the order in which they are shown."""
    shown = sorted(rows.tolist(), key=lambda row: hashed_draw(f"relabel {seed} {scored.image_ids[row]}"))
    width = max(4, len(str(len(shown))))
    places = {tuple(scored.places[row].tolist()): (number, row) for number, row in enumerate(shown, 1)}
    items: dict[int, Item] = {}
    for (number, row), encoded in encoded_images(shards, places):
        ending = "png" if encoded.startswith(b"\x89PNG") else "jpg"
        file = f"{IMAGES}/{number:0{width}d}.{ending}"
        (folder / file).write_bytes(encoded)
        items[number] = Item(row, int(scored.image_ids[row]), file)
    if len(items) < len(shown):
        raise InputError(f"{len(shown) - len(items)} records are gone since they were scored; export again")
    return [items[number] for number in sorted(items)]


def _key_row(item: Item, shards: Sequence[File], scored: Scored) -> tuple[object, ...]:
    shard, index = scored.places[item.row].tolist()
    probabilities = scored.probabilities[item.row]
    of_label = float(probabilities[scored.labels[item.row]])
    return (
        item.image_id,
        item.file,
        scored.splits[item.row],
        shards[shard].name,
        index,
        scored.classes[scored.labels[item.row]],
        scored.classes[int(probabilities.argmax())],
        f"{of_label:.6g}",
        f"{1 - of_label:.6g}",
    )


def _counts(scored: Scored, chosen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts by split; `least_disagreement` is that of the last image exported, None where there is none."""
    probabilities = label_probabilities(scored)
    predicted = scored.probabilities.argmax(axis=1)
    return {
        split: {
            "scored": int((scored.splits == split).sum()),
            "exported": len(rows),
            "least_disagreement": float(1 - probabilities[rows].max()) if len(rows) else None,
            "predicted_otherwise": int((predicted[rows] != scored.labels[rows]).sum()),
        }
        for split, rows in chosen.items()
    }
