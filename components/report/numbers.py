"""Everything that a report says, as JSON: the one source of the page and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from components.evaluations import CROSS_NAME, SLICES, TIMES, auc_classes
from components.prediction_table import scores_of
from components.report import curves
from components.report.curves import share
from components.settings import ReportOptions

if TYPE_CHECKING:
    import pandas as pd


def slices(frame: pd.DataFrame, right: np.ndarray, target: np.ndarray | None) -> list[dict[str, Any]]:
    """Returns a table for each of institution, imager and both: `kind` and `rows`, sorted by name.

    A row has `name`, `accuracy` and `target` (recall of the class that must not be missed, None without one), each a
    `components.report.curves.share`. `frame`: the Evaluator's table; `right`: bool [n], whether the label was
    predicted; `target`: bool [n], whether the label is that class.
    """
    values = {kind: frame[kind].astype(str).to_numpy(object) for kind in SLICES}
    crossed = [TIMES.join(pair) for pair in zip(*(values[kind] for kind in SLICES), strict=True)]
    values[CROSS_NAME] = np.array(crossed, object)
    return [
        {"kind": kind, "rows": [_row(name, of_kind == name, right, target) for name in sorted(set(of_kind))]}
        for kind, of_kind in values.items()
    ]


def _row(name: str, chosen: np.ndarray, right: np.ndarray, target: np.ndarray | None) -> dict[str, Any]:
    told = {"name": name, "accuracy": share(int(right[chosen].sum()), int(chosen.sum())), "target": None}
    if target is not None:
        both = chosen & target
        told["target"] = share(int(right[both].sum()), int(both.sum()))
    return told


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns `columns` (class names) and `rows`, a row a true class: `name`, `count`, `cells`.

    A cell has `predicted`, `count`, `share` (of the true class; None where it has no image) and, of MARCO's four
    classes, `paper` (its share there) and `difference` (ours less the paper's); these are None otherwise. `labels`,
    `predicted`: int [n], class indices.
    """
    names = list(classes)
    counts = np.zeros([len(names)] * 2, np.int64)
    np.add.at(counts, (labels, predicted), 1)
    columns = curves.order(names)
    at = [names.index(name) for name in columns]
    rows = []
    for name in columns:
        row = counts[names.index(name), at]
        shown = curves.CONFUSION[name] if curves.applies(names) else [None] * len(columns)
        cells = [
            _cell(other, int(count), int(row.sum()), there)
            for other, count, there in zip(columns, row, shown, strict=True)
        ]
        rows.append({"name": name, "count": int(row.sum()), "cells": cells})
    return {"columns": list(columns), "rows": rows}


def _cell(predicted: str, count: int, total: int, there: float | None) -> dict[str, Any]:
    share = count / total if total else None
    difference = share - there if share is not None and there is not None else None
    return {"predicted": predicted, "count": count, "share": share, "paper": there, "difference": difference}


if TYPE_CHECKING:
    import pandas as pd


def disagreements(frame: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Returns the `count` images whose label has the lowest score, of those to which another class was given.

    Each has `row` (its place in `frame`), `image_id`, `filename`, `institution`, `imager`, `label`, `predicted`,
    `score` (of the predicted class) and `label_score`.
    """
    labels = frame["label"].to_numpy(np.int64)
    of_label = scores[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    chosen = wrong[np.argsort(of_label[wrong], kind="stable")][:count]
    return [_told(frame, scores, classes, int(row)) for row in chosen]


def errors(
    frame: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], target: str | None, kinds: int, examples: int
) -> list[dict[str, Any]]:
    """Returns the kinds of error with examples: what was missed of `target` first, then what was taken for it.

    The rest follow by how often they happen; at most `kinds`. Each has `label`, `predicted`, `count`, `share` (of the
    true class) and `images`, at most `examples` of those with the highest score for the wrong class, told as
    `disagreements` does.
    """
    labels = frame["label"].to_numpy(np.int64)
    predicted = scores.argmax(axis=1)
    found: list[dict[str, Any]] = []
    for true, given in sorted({(int(a), int(b)) for a, b in zip(labels, predicted, strict=True) if a != b}):
        of_kind = np.flatnonzero((labels == true) & (predicted == given))
        strongest = of_kind[np.argsort(-scores[of_kind, given], kind="stable")][:examples]
        found.append(
            {
                "label": classes[true],
                "predicted": classes[given],
                "count": len(of_kind),
                "share": len(of_kind) / int((labels == true).sum()),
                "images": [_told(frame, scores, classes, int(row)) for row in strongest],
            }
        )
    found.sort(key=lambda kind: (kind["label"] != target, kind["predicted"] != target, -kind["count"]))
    return found[:kinds]


def _told(frame: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], row: int) -> dict[str, Any]:
    one = frame.iloc[row]
    label, predicted = int(one["label"]), int(scores[row].argmax())
    return {
        "row": row,
        "image_id": int(one["image_id"]),
        "filename": str(one["filename"]),
        "institution": str(one["institution"]),
        "imager": str(one["imager"]),
        "label": classes[label],
        "predicted": classes[predicted],
        "score": float(scores[row, predicted]),
        "label_score": float(scores[row, label]),
    }


if TYPE_CHECKING:
    import pandas as pd


def numbers(
    frame: pd.DataFrame,
    evaluation: Mapping[str, Any],
    options: ReportOptions,
    *,
    temperature: float = 1.0,
    decision: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the content of `report.json` (docs/report.md) but for what became of the pictures.

    `frame`: the Evaluator's table, one row or more; `evaluation`: its `metrics.json`; `temperature`: the exported
    model's; `decision`: the gate's `decision.json`, where there is a gate; `about`: where the run comes from.
    """
    classes, scores = list(evaluation["classes"]), scores_of(frame)
    labels = frame["label"].to_numpy(np.int64)
    predicted = scores.argmax(axis=1)
    right = predicted == labels
    target = options.target_of(classes)
    of_target = labels == classes.index(target) if target else None
    return {
        "about": dict(about or {}),
        "classes": classes,
        "interval": curves.LEVEL,
        "verdict": _verdict(evaluation, decision),
        "accuracy": curves.share(int(right.sum()), len(right)),
        "target": None if of_target is None else _target(target, right, of_target),
        "paper": {"accuracy": curves.ACCURACY, "images": curves.IMAGES} if curves.applies(classes) else None,
        "confusion": confusion(labels, predicted, classes),
        "roc": [
            curves.roc(name, labels == classes.index(name), scores[:, classes.index(name)], classes)
            for name in auc_classes(classes)
        ],
        "slices": slices(frame, right, of_target),
        "calibration": curves.reliability(scores, labels, temperature),
        "thresholds": None
        if of_target is None
        else curves.thresholds(
            str(target), of_target, scores[:, classes.index(target)], options.recall, options.recalls
        ),
        "disagreements": disagreements(frame, scores, classes, options.disagreements),
        "errors": errors(frame, scores, classes, target, options.error_kinds, options.errors),
        "pictures": {"overlays": 0, "samples": options.overlay_samples, "seconds": 0.0},
    }


def _target(name: str | None, right: np.ndarray, of_target: np.ndarray) -> dict[str, Any]:
    return {"name": name, "recall": curves.share(int(right[of_target].sum()), int(of_target.sum()))}


def _verdict(evaluation: Mapping[str, Any], decision: Mapping[str, Any] | None) -> dict[str, Any]:
    """The gate's decision; without a gate the Evaluator's thresholds alone."""
    thresholds_met = [{"name": name, "bound": bound} for name, bound in sorted(evaluation["thresholds"].items())]
    told = {"thresholds": thresholds_met, "failures": list(evaluation["failures"])}
    if decision is None:
        return {**told, "blessed": evaluation["blessed"], "champion": None, "reasons": told["failures"], "checks": []}
    return {
        **told,
        "blessed": decision["blessed"],
        "champion": decision.get("champion"),
        "reasons": list(decision.get("reasons", [])),
        "checks": list(decision.get("checks", [])),
    }
