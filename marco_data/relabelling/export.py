"""The folder that experts get, and the key that they don't: images without labels, sheets, a page to label them in."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marco_data import overlay
from marco_data.relabelling.scoring import Scored, encoded_images
from marco_data.shards import EVAL, File, hashed_draw
from marco_model.errors import InputError


def check_share(share: float) -> None:
    """Raises `InputError` for a share that is none."""
    if not 0 < share <= 1:
        raise InputError(f"--share is {share}; give a share above 0 and up to 1, such as 0.05")


def label_probabilities(scored: Scored) -> np.ndarray:
    """Returns the probability of each record's own label, float32 [n]; disagreement is 1 minus that.

    It asks how little the classifier believes the label, whatever else it believes in. Log-odds of it rank alike; the
    margin to the best other class would rank an image lower that is torn between two other classes, though its label is
    as improbable.
    """
    rows: np.ndarray = scored.probabilities[np.arange(len(scored.labels)), scored.labels]
    return rows


def most_disagreeing(scored: Scored, share: float) -> dict[str, np.ndarray]:
    """Returns, by split, the rows of the `share` of its images whose labels are least probable, the least first.

    Of records with one id one counts, that of the evaluation set if it is there, as in ExampleGen. Equal probabilities
    go by id, so that the order of shards does not matter. At least one image of a split is taken, but none where all of
    its images count in another. Raises `InputError` for a share that is none.
    """
    check_share(share)
    probabilities = label_probabilities(scored)
    once = _once(scored)
    chosen = {}
    for split in sorted(set(scored.splits.tolist())):
        rows = once[scored.splits[once] == split]
        order = np.lexsort((scored.image_ids[rows], probabilities[rows]))
        chosen[split] = rows[order[: math.ceil(share * len(rows) - 1e-9)]]
    return chosen


def _once(scored: Scored) -> np.ndarray:
    """Returns the rows that count, one an id."""
    order = np.lexsort((np.arange(len(scored.splits)), scored.splits != EVAL))
    _, first = np.unique(scored.image_ids[order], return_index=True)
    return np.sort(order[first])


def write_page(path: Path, items: Sequence[Item], classes: Sequence[str], raters: Sequence[str]) -> None:
    """Writes the page beside the folder of images.

    Keys 1, 2, … choose a class; answers are kept by the browser and saved as a sheet, which the page can load again.
    """
    told = {
        "name": hashlib.sha256("".join(f"{item.image_id} {item.file}\n" for item in items).encode()).hexdigest()[:16],
        "classes": list(classes),
        "raters": list(raters),
        "items": [[str(item.image_id), item.file] for item in items],
    }
    template = importlib.resources.files(__package__).joinpath("rater_page.html").read_text(encoding="utf-8")
    # The text stands in a script element, which "</" could end.
    path.write_text(template.replace("__TOLD__", json.dumps(told).replace("</", "<\\/")), encoding="utf-8")


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
        overlay.write_lines(aside / RATERS / f"sheet-{name}.csv", SHEET_HEADER, rows)
    overlay.write_lines(aside / KEY, KEY_HEADER, (_key_row(item, shards, scored) for item in items))
    if skipped:
        overlay.write_lines(aside / SKIPPED, SKIPPED_HEADER, skipped)
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
