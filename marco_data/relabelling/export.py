"""The images that experts look at, and the folder they get (`marco relabel export`)."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marco_data import name_tables, pages, shards
from marco_data.relabelling.scoring import ScoredRecords, encoded_images
from marco_model import errors, store

RATERS, IMAGES, KEY, ABOUT, SKIPPED = "raters", "images", "key.csv", "export.json", "skipped.csv"
SHEET_HEADER = ("image_id", "file", "label", "rater", "date", "note")
KEY_HEADER = ("image_id", "file", "split", "shard", "index", "old_label", "predicted", "probability", "disagreement")
SKIPPED_HEADER = ("shard", "index", "reason")
_RATER_NAME = re.compile(r"[\w][\w .@-]*")


def check_share(share: float) -> None:
    """Raises `InputError` for a share that is not above 0 and at most 1."""
    if not 0 < share <= 1:
        raise errors.InputError(f"--share is {share}; give a share above 0 and up to 1, such as 0.05")


def check_raters(raters: Sequence[str]) -> None:
    """Raises `InputError` for names that cannot be part of a file name, and for equal ones."""
    for name in raters:
        if not _RATER_NAME.fullmatch(name):
            raise errors.InputError(
                f"rater {name!r} cannot name a file; use letters, digits, spaces, '.', '@', '_' and '-'"
            )
    if not raters or len({name.casefold() for name in raters}) < len(raters):
        raise errors.InputError(f"raters are {', '.join(raters) or 'none'}; give each a name of its own")


def label_probabilities(scored: ScoredRecords) -> np.ndarray:
    """Returns the probability of each record's own label, float32 [n]; disagreement is 1 minus that.

    It measures how little the classifier believes the label, whatever else it believes in. The log-odds give the same
    ranking. The margin to the best other class would rank an image lower if the classifier is torn between two other
    classes, though its label is equally improbable.
    """
    return np.asarray(scored.probabilities[np.arange(len(scored.labels)), scored.labels])


def most_disagreeing(scored: ScoredRecords, share: float) -> dict[str, np.ndarray]:
    """Returns, by split, the rows of the `share` of its images whose labels are least probable, the least first.

    Of records with the same id only one counts: that of the evaluation set, if there is one, as in ExampleGen. Equal
    probabilities are sorted by id, so the order of shards does not matter. At least one image of a split is taken,
    unless all of its images count in another. Raises `InputError` for an invalid share.
    """
    check_share(share)
    probabilities = label_probabilities(scored)
    order = np.lexsort((np.arange(len(scored.splits)), scored.splits != shards.EVAL))
    _, first = np.unique(scored.image_ids[order], return_index=True)
    counted = np.sort(order[first])
    chosen = {}
    for split in sorted(set(scored.splits.tolist())):
        rows = counted[scored.splits[counted] == split]
        order = np.lexsort((scored.image_ids[rows], probabilities[rows]))
        chosen[split] = rows[order[: math.ceil(share * len(rows) - 1e-9)]]
    return chosen


class Item(NamedTuple):
    """An image to look at: its row among the scored records, its id, and its file, named by a shuffled order."""

    row: int
    image_id: int
    file: str


def write_export(
    output: Path,
    files: Sequence[shards.File],
    scored: ScoredRecords,
    chosen: Mapping[str, np.ndarray],
    raters: Sequence[str],
    seed: int,
    skipped: Sequence[tuple[str, int, str]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the folder `output`, new or empty, and returns the content of its `export.json`.

    Experts get `raters/`: `images/` as they are in the records, `index.html`, `sheet-NAME.csv`. Beside it, not for
    them: `key.csv`, `export.json` (`about`, classes, counts), and `skipped.csv` if records could not be scored.
    `files`: the shards scored. `chosen`: rows of `scored` by split. The order is drawn by `seed` and the image ids.
    """
    store.require_new_or_empty(output)
    export = {**about, "classes": list(scored.classes), "skipped": len(skipped), "splits": _counts(scored, chosen)}
    with store.whole_directory(output) as folder:
        (folder / RATERS / IMAGES).mkdir(parents=True)
        items = _write_images(folder / RATERS, files, scored, np.concatenate(list(chosen.values())), seed)
        write_page(folder / RATERS / "index.html", items, scored.classes, raters)
        for name in raters:
            rows = ((item.image_id, item.file, "", name, "", "") for item in items)
            name_tables.write_csv(folder / RATERS / f"sheet-{name}.csv", SHEET_HEADER, rows, for_excel=True)
        name_tables.write_csv(folder / KEY, KEY_HEADER, (_key_row(item, files, scored) for item in items))
        if skipped:
            name_tables.write_csv(folder / SKIPPED, SKIPPED_HEADER, skipped)
        (folder / ABOUT).write_text(json.dumps(export, indent=2) + "\n")
    return export


def write_page(path: Path, items: Sequence[Item], classes: Sequence[str], raters: Sequence[str]) -> None:
    """Writes the page to label images in; it belongs beside their folder.

    Keys 1, 2, … choose a class. The browser keeps answers until they are saved as a sheet, which the page can load.
    """
    settings = {
        "name": hashlib.sha256("".join(f"{item.image_id} {item.file}\n" for item in items).encode()).hexdigest()[:16],
        "classes": list(classes),
        "raters": list(raters),
        "items": [[str(item.image_id), item.file] for item in items],
    }
    folder = Path(__file__).parent
    script = (folder / "rater_page.js").read_text(encoding="utf-8")
    page = pages.environment(folder).get_template("rater_page.html.jinja").render(settings=settings, script=script)
    path.write_text(page, encoding="utf-8")


def _write_images(
    folder: Path, files: Sequence[shards.File], scored: ScoredRecords, rows: np.ndarray, seed: int
) -> list[Item]:
    """Writes the images of `rows` below `folder` and returns them in the order in which they are shown."""
    shown = sorted(rows.tolist(), key=lambda row: shards.hashed_draw(f"relabel {seed} {scored.image_ids[row]}"))
    width = max(4, len(str(len(shown))))
    places = {tuple(scored.places[row].tolist()): (number, row) for number, row in enumerate(shown, 1)}
    items: dict[int, Item] = {}
    for (number, row), encoded in encoded_images(files, places):
        ending = "png" if encoded.startswith(b"\x89PNG") else "jpg"
        file = f"{IMAGES}/{number:0{width}d}.{ending}"
        (folder / file).write_bytes(encoded)
        items[number] = Item(row, int(scored.image_ids[row]), file)
    if len(items) < len(shown):
        raise errors.InputError(f"{len(shown) - len(items)} records are gone since they were scored; export again")
    return [items[number] for number in sorted(items)]


def _key_row(item: Item, files: Sequence[shards.File], scored: ScoredRecords) -> tuple[object, ...]:
    shard, index = scored.places[item.row].tolist()
    probabilities, label = scored.probabilities[item.row], scored.labels[item.row]
    place = (scored.splits[item.row], files[shard].name, index)
    names = (scored.classes[label], scored.classes[int(probabilities.argmax())])
    probability = float(probabilities[label])
    return item.image_id, item.file, *place, *names, f"{probability:.6g}", f"{1 - probability:.6g}"


def _counts(scored: ScoredRecords, chosen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns counts by split; `least_disagreement` is that of the last image exported, None if none was exported."""
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
