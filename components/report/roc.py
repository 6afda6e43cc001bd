"""ROC of a class against the rest: the curve, its area, and the paper's operating points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from components.report import paper

POINTS = 200
"""Points of a curve that are kept to be drawn."""
RECALLS = (0.99, 0.95, 0.9)
"""Where a curve is read off for classes of which the paper says nothing."""


class Curve(NamedTuple):
    """From the strictest threshold to the most lenient: float64 [k] each, beginning with nothing called positive.

    A point calls positive what scores at least `threshold`, which is infinite at first.
    """

    threshold: np.ndarray
    false_positive_rate: np.ndarray
    recall: np.ndarray


def curve(positive: np.ndarray, scores: np.ndarray) -> Curve | None:
    """Returns the ROC curve, a point a different score; None where all images are, or none is, positive.

    `positive`: bool [n]; `scores`: float [n].
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order].astype(np.float64), positive[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    true, false = np.cumsum(hits)[last], np.cumsum(~hits)[last]
    return Curve(
        np.concatenate([[np.inf], ranked[last]]),
        np.concatenate([[0.0], false / negatives]),
        np.concatenate([[0.0], true / positives]),
    )


def area(found: Curve) -> float:
    """Returns the area under the curve by trapezoids, which counts ties half."""
    widths = np.diff(found.false_positive_rate)
    return float((widths * (found.recall[1:] + found.recall[:-1]) / 2).sum())


def thinned(count: int, keep: int = POINTS) -> np.ndarray:
    """Returns at most `keep` of the indices 0 … count - 1, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, keep)).round().astype(int))


def roc(name: str, positive: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns `name`, `positives`, `negatives`, `auc`, `paper_auc`, `points` and `operating`.

    `points`: at most 200 of the curve, with `threshold` (None for the first), `false_positive_rate` and `recall`.
    `operating`: for each recall (the paper's two, of its classes) `wanted`, the smallest `false_positive_rate` that
    reaches it, `recall` and `threshold` there, and `paper`, the share that the paper's stays below, or None.
    `auc` is None, and there are no points, where one of both kinds is missing.
    """
    found = curve(positive, scores)
    known = paper.applies(classes) and name in paper.AUC
    told: dict[str, Any] = {
        "name": name,
        "positives": int(positive.sum()),
        "negatives": int((~positive).sum()),
        "auc": None if found is None else area(found),
        "paper_auc": paper.AUC[name] if known else None,
        "points": [],
        "operating": [],
    }
    if found is None:
        return told
    told["points"] = [_point(found, index) for index in thinned(len(found.recall))]
    for wanted, there in paper.OPERATING[name] if known else [(recall, None) for recall in RECALLS]:
        at = int(np.argmax(found.recall >= wanted))
        told["operating"].append({"wanted": wanted, **_point(found, at), "paper": there})
    return told


def _point(found: Curve, index: int) -> dict[str, Any]:
    threshold = float(found.threshold[index])
    return {
        "threshold": None if np.isinf(threshold) else threshold,
        "false_positive_rate": float(found.false_positive_rate[index]),
        "recall": float(found.recall[index]),
    }
