"""How a model does on images of a source that it never saw, beside the model that saw them all: leave one source out.

The content of `leave_out.json`: `attribute`, `target` (the class that must not be missed, or None), `interval` (the
confidence of every interval), `smallest` and `rows`, one for each value left out, with `value`, `images`, and for
`accuracy` and `target` (its recall) a comparison. That has `home` and `away`, each a `components.report.curves.share`,
of the model that saw the source and of the one that did not; and `difference`, away less home, with its limits `low`
and `high`, paired by image and plate, all None below `smallest` images. `mean` is their plain mean over the values.

The file `sources.npz` of a set of examples has the source of each image that a training may see, so that one source can
be left out without reading the images: `names` (str, sorted), and for each role of `ROLES` an array, int32 [records],
of places in `names`, in the order of `marco_model.example_files.read_index`.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from components import evaluations, significance
from components.report import curves
from marco_data import shards
from marco_model import errors, store

if TYPE_CHECKING:
    import pandas as pd

JSON_FILE, HTML_FILE, SOURCES_FILE = "leave_out.json", "leave_out.html", "sources.npz"
ROLES = (shards.TRAIN, shards.VALIDATION)
ACCURACY, TARGET = METRICS = ("accuracy", "target")


def write_sources(path: str, sources: Mapping[str, Sequence[str]]) -> None:
    """Writes the file; `sources`: the source of each record by role."""
    names = sorted({name for role in ROLES for name in sources[role]})
    numbers = {name: number for number, name in enumerate(names)}
    columns = {role: np.array([numbers[name] for name in sources[role]], np.int32) for role in ROLES}
    store.write_bytes(path, store.npz({"names": np.array(names, str), **columns}, compressed=True))


def seen(path: str, role: str, left_out: str) -> np.ndarray:
    """Returns which records of a role are not of the source `left_out`, bool [records]."""
    columns = store.arrays(store.read_bytes(path, f"{path} is missing; run the step Sources again"))
    return np.asarray(columns["names"][columns[role]] != left_out)


def check_sources(sources: Mapping[str, Sequence[str]], attribute: str, values: Sequence[str]) -> None:
    """Raises `InputError` for a value that no training image has, or without which a split would be empty."""
    counts = {role: collections.Counter(sources[role]) for role in ROLES}
    for value in values:
        if not counts[shards.TRAIN][value]:
            known = ", ".join(sorted(counts[shards.TRAIN]))
            raise errors.InputError(f"no training image has the {attribute} {value!r}; leave_out.values may be {known}")
        for role in ROLES:
            if not counts[role].total() - counts[role][value]:
                raise errors.InputError(
                    f"without the {attribute} {value!r} no {role} image is left; leave it out of leave_out.values, or "
                    "add images of others"
                )


def compare(
    home: "pd.DataFrame",
    away: "pd.DataFrame",
    attribute: str,
    values: Sequence[str],
    classes: Sequence[str],
    target: str | None,
    smallest: int,
) -> dict[str, Any]:
    """Returns the content of `leave_out.json`.

    `home`: predictions of all images by the model that saw all sources. `away`: those of the images of each of `values`
    by the model that saw all but these. `smallest`: images below which nothing is said of a difference.

    Raises `InputError` if the tables are not of the same images.
    """
    home = home[home[attribute].isin(list(values))].sort_values(["shard", "index"], ignore_index=True)
    away = away.sort_values(["shard", "index"], ignore_index=True)
    key = ["shard", "index", "image_id", "label"]
    if not home[key].equals(away[key]):
        raise errors.InputError("the evaluations are not of the same images; run the steps Evaluator again")
    labels, plates = home["label"].to_numpy(), evaluations.plates(home)
    right = [_right(table) for table in (home, away)]
    rows: list[dict[str, Any]] = []
    for value in values:
        mask = home[attribute].to_numpy() == value
        masks = {ACCURACY: mask, TARGET: mask & (labels == list(classes).index(target))} if target else {ACCURACY: mask}
        parts = {
            name: _comparison(right[0][chosen], right[1][chosen], plates[chosen], smallest)
            for name, chosen in masks.items()
        }
        rows.append({"value": value, "images": int(mask.sum()), **dict.fromkeys(METRICS), **parts})
    return {
        "attribute": attribute,
        "target": target,
        "interval": curves.LEVEL,
        "smallest": smallest,
        "rows": rows,
        "mean": {name: _mean([row[name] for row in rows if row[name]]) for name in METRICS},
    }


def _right(table: "pd.DataFrame") -> np.ndarray:
    """Returns whether the label of each row was predicted, bool [rows]."""
    if table.empty:
        return np.zeros(0, bool)
    return np.asarray(evaluations.scores_of(table).argmax(axis=1) == table["label"].to_numpy())


def _comparison(home: np.ndarray, away: np.ndarray, plates: np.ndarray, smallest: int) -> dict[str, Any]:
    """Returns how often two models are right, bool [n] each, on the same images; `plates`: int [n]."""
    shares = {name: curves.share(int(part.sum()), len(part)) for name, part in (("home", home), ("away", away))}
    if len(home) < smallest:
        return {**shares, **dict.fromkeys(("difference", "low", "high", "error"))}
    counts = significance.pairs(away, home, plates)
    return {**shares, "difference": counts.difference, **significance.paired_interval(counts, curves.LEVEL)._asdict()}


def _mean(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns the mean of those that have a difference: `values` (how many), `home`, `away`, `difference`, its limits.

    The values' images are others, so that the errors of their differences are independent. Returns None without any.
    """
    judged = [part for part in comparisons if part["difference"] is not None]
    if not judged:
        return None
    shares = {name: float(np.mean([part[name]["share"] for part in judged])) for name in ("home", "away")}
    difference = float(np.mean([part["difference"] for part in judged]))
    error = math.sqrt(sum(part["error"] ** 2 for part in judged)) / len(judged)
    reach = significance.normal_quantile((1 - curves.LEVEL) / 2) * error
    limits = {"low": max(-1.0, difference - reach), "high": min(1.0, difference + reach), "error": error}
    return {"values": len(judged), **shares, "difference": difference, **limits}


def flat_metrics(content: Mapping[str, Any]) -> dict[str, float]:
    """Returns metrics for MLflow: `leave_out/institution/CSIRO/accuracy/away`, …; undefined ones are left out."""
    metrics = {}
    recall = f"recall/{content['target']}"
    for row in [*content["rows"], {"value": "mean", **content["mean"]}]:
        for name, metric in ((ACCURACY, ACCURACY), (TARGET, recall)):
            part = row[name] or {}
            for kind in ("home", "away", "difference"):
                number = part.get(kind)
                number = number.get("share") if isinstance(number, Mapping) else number
                if number is not None:
                    metrics[f"leave_out/{content['attribute']}/{row['value']}/{metric}/{kind}"] = float(number)
    return metrics
