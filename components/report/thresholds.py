"""The score from which an image is looked at, for a recall that is wanted, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from components.report.intervals import share
from components.report.roc import thinned


def threshold_for(positive: np.ndarray, scores: np.ndarray, recall: float) -> float:
    """Returns the highest threshold at which at least `recall` of the positives score as much or more.

    `positive`: bool [n], at least one of them true; `scores`: float [n]; `recall`: above 0, at most 1.
    """
    ranked = np.sort(scores[positive])[::-1]
    # A hair less, for 0.95 × 20 must not ask for 20 of 20.
    return float(ranked[max(math.ceil(recall * len(ranked) - 1e-9), 1) - 1])


def cost(positive: np.ndarray, scores: np.ndarray, wanted: float) -> dict[str, Any]:
    """Returns what a recall of `wanted` takes.

    `wanted`, `threshold`; `recall` (of the positives), `false_positives` (of the negatives), `looked_at` (of all
    images) and `precision` (positives of those looked at), each a `components.report.intervals.share`; and `missed`.
    """
    threshold = threshold_for(positive, scores, wanted)
    looked_at = scores.astype(np.float64) >= threshold
    found, flagged = int((looked_at & positive).sum()), int(looked_at.sum())
    positives = int(positive.sum())
    return {
        "wanted": wanted,
        "threshold": threshold,
        "recall": share(found, positives),
        "missed": positives - found,
        "false_positives": share(flagged - found, len(positive) - positives),
        "looked_at": share(flagged, len(positive)),
        "precision": share(found, flagged),
    }


def thresholds(
    name: str, positive: np.ndarray, scores: np.ndarray, chosen: float, recalls: Sequence[float]
) -> dict[str, Any] | None:
    """Returns `name`, `chosen` and `rows` (each a `cost`) and `curve`, at most 200 points; None without a positive.

    A point has `recall` and `looked_at`, the share of images to look at for it.
    """
    if not positive.any():
        return None
    ranked = np.sort(scores[positive])[::-1]
    every = np.sort(scores)
    points = thinned(len(ranked))
    flagged = len(every) - np.searchsorted(every, ranked[points], side="left")
    found = len(ranked) - np.searchsorted(ranked[::-1], ranked[points], side="left")
    return {
        "name": name,
        "chosen": cost(positive, scores, chosen),
        "rows": [cost(positive, scores, wanted) for wanted in sorted({*recalls, chosen})],
        "curve": [
            {"recall": float(one / len(ranked)), "looked_at": float(many / len(every))}
            for one, many in zip(found, flagged, strict=True)
        ],
    }
