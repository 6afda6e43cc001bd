"""Everything that a report shows, as JSON: the one source of the page and its figures (docs/report.md)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components import evaluations, settings
from components.report import curves
from marco_data import shards


def numbers(
    frame: pd.DataFrame,
    evaluation: Mapping[str, Any],
    options: settings.ReportOptions,
    *,
    temperature: float = 1.0,
    decision: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the content of `report.json` except what became of the pictures.

    `frame`: the Evaluator's table, one row or more; `evaluation`: its `metrics.json`; `temperature`: the exported
    model's; `decision`: the gate's `decision.json`, if there is a gate; `about`: where the run comes from, and as
    `validation` the split by which training stopped; `training`: the `training.json` of the model, if it has one.
    """
    classes, scores = list(evaluation["classes"]), evaluations.scores_of(frame)
    labels = frame["label"].to_numpy(np.int64)
    predicted = scores.argmax(axis=1)
    right = predicted == labels
    target = options.target_of(classes)
    report = {
        "about": {"validation": shards.VALIDATION, **(about or {})},
        "classes": classes,
        "interval": curves.LEVEL,
        "verdict": _verdict(evaluation, decision),
        "accuracy": curves.share(int(right.sum()), len(right)),
        "target": None,
        "paper": {"accuracy": curves.ACCURACY, "images": curves.IMAGES} if curves.applies(classes) else None,
        "confusion": confusion(labels, predicted, classes),
        "roc": [
            curves.roc(name, labels == classes.index(name), scores[:, classes.index(name)], classes)
            for name in evaluations.auc_classes(classes)
        ],
        "slices": slices(frame, right, labels == classes.index(target) if target else None),
        "calibration": curves.reliability(scores, labels, temperature),
        "training": learning_curve(training or {}),
        "thresholds": None,
        "averaged": evaluation.get("averaged"),
        "disagreements": disagreements(frame, scores, classes, options.disagreements),
        "errors": errors(frame, scores, classes, target, options.error_kinds, options.errors),
        "pictures": {"overlays": 0, "samples": options.overlay_samples, "seconds": 0.0},
    }
    if target:
        index = classes.index(target)
        positive = labels == index
        report["target"] = {"name": target, "recall": curves.share(int(right[positive].sum()), int(positive.sum()))}
        report["thresholds"] = curves.thresholds(target, positive, scores[:, index], options.recall, options.recalls)
    return report


def _verdict(evaluation: Mapping[str, Any], decision: Mapping[str, Any] | None) -> dict[str, Any]:
    """The gate's decision; without a gate that of the Evaluator's thresholds alone."""
    bounds = [{"name": name, "bound": bound} for name, bound in sorted(evaluation["thresholds"].items())]
    failures = evaluation["failures"]
    alone = {"blessed": evaluation["blessed"], "champion": None, "reasons": failures, "checks": []}
    return {"thresholds": bounds, "failures": failures, **(decision or alone)}


def learning_curve(training: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns `steps`, `best_step` (whose weights the model has), `gained` and `points`: `step`, `accuracy`, `loss`.

    The points are the evaluations on the validation split. `gained`: whether the best was not the first weights.
    Returns None of a training without evaluations.
    """
    if not training.get("history"):
        return None
    best = training["best_step"]
    return {"steps": training["steps"], "best_step": best, "gained": best > 0, "points": list(training["history"])}


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns `columns` (class names) and `rows`, one per true class: `name`, `count`, `cells`.

    A cell has `predicted`, `count`, `share` (of the true class; None if it has no image) and, of MARCO's four
    classes, `paper` (its share there) and `difference` (ours less the paper's); these are None otherwise. `labels`,
    `predicted`: int [n], class indices.
    """
    names, columns = list(classes), curves.order(classes)
    counts = evaluations.confusion_matrix(labels, predicted, len(names))
    indices = [names.index(name) for name in columns]
    rows = []
    for name in columns:
        row = counts[names.index(name), indices]
        paper = curves.CONFUSION[name] if curves.applies(names) else [None] * len(columns)
        cells = [_cell(*cell, int(row.sum())) for cell in zip(columns, row.tolist(), paper, strict=True)]
        rows.append({"name": name, "count": int(row.sum()), "cells": cells})
    return {"columns": list(columns), "rows": rows}


def _cell(predicted: str, count: int, paper: float | None, total: int) -> dict[str, Any]:
    of_class = count / total if total else None
    difference = of_class - paper if of_class is not None and paper is not None else None
    return {"predicted": predicted, "count": count, "share": of_class, "paper": paper, "difference": difference}


def slices(frame: pd.DataFrame, right: np.ndarray, target: np.ndarray | None) -> list[dict[str, Any]]:
    """Returns a table for each of institution, imager and both: `kind` and `rows`, sorted by name.

    A row has `name`, `accuracy` and `target` (recall of the class that must not be missed, None without one), each a
    `components.report.curves.share`. `frame`: the Evaluator's table; `right`: bool [n], whether the label was
    predicted; `target`: bool [n], whether the label is that class.
    """
    kinds = itertools.groupby(evaluations.slice_masks(frame), lambda part: part[0].kind)
    return [
        {"kind": kind, "rows": [_row(key.value, mask, right, target) for key, mask in parts]} for kind, parts in kinds
    ]


def _row(name: str, mask: np.ndarray, right: np.ndarray, target: np.ndarray | None) -> dict[str, Any]:
    accuracy, recall = curves.share(int(right[mask].sum()), int(mask.sum())), None
    if target is not None:
        recall = curves.share(int(right[mask & target].sum()), int((mask & target).sum()))
    return {"name": name, "accuracy": accuracy, "target": recall}


def disagreements(frame: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Returns the `count` images whose label has the lowest score, of those to which another class was given.

    Each has `row` (its place in `frame`), `image_id`, `filename`, `institution`, `imager`, `label`, `predicted`,
    `score` (of the predicted class) and `label_score`.
    """
    labels = frame["label"].to_numpy(np.int64)
    label_scores = scores[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    chosen = wrong[np.argsort(label_scores[wrong], kind="stable")][:count]
    return [_image(frame, scores, classes, int(row)) for row in chosen]


def errors(
    frame: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], target: str | None, kinds: int, examples: int
) -> list[dict[str, Any]]:
    """Returns the kinds of error with examples: what was missed of `target` first, then what was taken for it.

    The rest follow by how often they happen; at most `kinds`. Each has `label`, `predicted`, `count`, `share` (of the
    true class) and `images`, at most `examples` of those with the highest score for the wrong class, as
    `disagreements` returns them.
    """
    labels = frame["label"].to_numpy(np.int64)
    predicted = scores.argmax(axis=1)
    listed: list[dict[str, Any]] = []
    for true, wrong in sorted({(int(a), int(b)) for a, b in zip(labels, predicted, strict=True) if a != b}):
        rows = np.flatnonzero((labels == true) & (predicted == wrong))
        strongest = rows[np.argsort(-scores[rows, wrong], kind="stable")][:examples]
        listed.append(
            {
                "label": classes[true],
                "predicted": classes[wrong],
                "count": len(rows),
                "share": len(rows) / int((labels == true).sum()),
                "images": [_image(frame, scores, classes, int(row)) for row in strongest],
            }
        )
    listed.sort(key=lambda kind: (kind["label"] != target, kind["predicted"] != target, -kind["count"]))
    return listed[:kinds]


def _image(frame: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], row: int) -> dict[str, Any]:
    values = frame.iloc[row]
    label, predicted = int(values["label"]), int(scores[row].argmax())
    return {
        "row": row,
        "image_id": int(values["image_id"]),
        "filename": str(values["filename"]),
        "institution": str(values["institution"]),
        "imager": str(values["imager"]),
        "label": classes[label],
        "predicted": classes[predicted],
        "score": float(scores[row, predicted]),
        "label_score": float(scores[row, label]),
    }
