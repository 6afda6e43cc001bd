"""Everything that a report says, as JSON: the one source of the page and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from components.evaluator.names import auc_classes
from components.evaluator.prediction_table import scores_of
from components.report import confusion, disagreements, intervals, paper, reliability, roc, slices, thresholds
from components.report.options import ReportOptions

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
        "interval": intervals.LEVEL,
        "verdict": _verdict(evaluation, decision),
        "accuracy": intervals.share(int(right.sum()), len(right)),
        "target": None if of_target is None else _target(target, right, of_target),
        "paper": {"accuracy": paper.ACCURACY, "images": paper.IMAGES} if paper.applies(classes) else None,
        "confusion": confusion.confusion(labels, predicted, classes),
        "roc": [
            roc.roc(name, labels == classes.index(name), scores[:, classes.index(name)], classes)
            for name in auc_classes(classes)
        ],
        "slices": slices.slices(frame, right, of_target),
        "calibration": reliability.reliability(scores, labels, temperature),
        "thresholds": None
        if of_target is None
        else thresholds.thresholds(
            str(target), of_target, scores[:, classes.index(target)], options.recall, options.recalls
        ),
        "disagreements": disagreements.disagreements(frame, scores, classes, options.disagreements),
        "errors": disagreements.errors(frame, scores, classes, target, options.error_kinds, options.errors),
        "pictures": {"overlays": 0, "samples": options.overlay_samples, "seconds": 0.0},
    }


def _target(name: str | None, right: np.ndarray, of_target: np.ndarray) -> dict[str, Any]:
    return {"name": name, "recall": intervals.share(int(right[of_target].sum()), int(of_target.sum()))}


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
