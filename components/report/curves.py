"""What scores can do, beside what Bruno et al. 2018 report: ROC curves, thresholds for a recall, and calibration.

Each function returns a part of `report.json`, plain values for JSON.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn import metrics

from components import significance
from marco_model import calibration, labels as label_schemes

ORDER = ("Crystals", "Precipitate", "Clear", "Other")
"""The order of Table IV."""

ACCURACY = 0.945
IMAGES = 47_062

CONFUSION = {
    "Crystals": (0.910, 0.058, 0.017, 0.015),
    "Precipitate": (0.008, 0.961, 0.023, 0.007),
    "Clear": (0.002, 0.018, 0.979, 0.002),
    "Other": (0.048, 0.197, 0.059, 0.696),
}
"""True class to the shares predicted as each class of `ORDER`; rounded as printed, so rows add up to 0.999 to 1.001."""

AUC = {"Crystals": 0.988, "Precipitate": 0.989}

OPERATING = {"Crystals": ((0.987, 0.19), (0.94, 0.016)), "Precipitate": ((0.996, 0.25), (0.94, 0.034))}
"""(recall, share of false positives that it stays below) of each class."""

LEVEL = 0.95
"""Confidence of every interval."""
POINTS = 200
"""Points of a curve that are kept to be drawn."""
RECALLS = (0.99, 0.95, 0.9)
"""Where a curve is read off for classes that the paper does not report."""
BINS = 15
"""Bins of confidence, of equal width."""


def applies(classes: Sequence[str]) -> bool:
    """Returns whether the paper's figures are of these classes."""
    return tuple(classes) == label_schemes.CLASSES


def order(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes in the order in which a table shows them: the paper's, if they are its four."""
    return ORDER if applies(classes) else tuple(classes)


def share(hits: int, count: int) -> dict[str, Any]:
    """Returns `found` (the hits), `count`, `share`, `low` and `high`; the last three are None if `count` is 0."""
    low, high = significance.share_interval(hits, count, LEVEL) if count else (None, None)
    share = hits / count if count else None
    return {"found": int(hits), "count": int(count), "share": share, "low": low, "high": high}


class Curve(NamedTuple):
    """From the strictest threshold to the most lenient: float [k] each, beginning with nothing called positive.

    A point calls positive what scores at least `threshold`, which is infinite at first.
    """

    threshold: np.ndarray
    false_positive_rate: np.ndarray
    recall: np.ndarray


def curve(positive: np.ndarray, scores: np.ndarray) -> Curve | None:
    """Returns the ROC curve, one point per different score; None if all images are positive, or none.

    `positive`: bool [n]; `scores`: float [n].
    """
    if positive.all() or not positive.any():
        return None
    rates, recalls, thresholds = metrics.roc_curve(positive, scores, drop_intermediate=False)
    return Curve(thresholds, rates, recalls)


def thinned(count: int) -> np.ndarray:
    """Returns at most `POINTS` of the indices 0 … count - 1, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))


def roc(name: str, positive: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns `name`, `positives`, `negatives`, `auc`, `paper_auc`, `points` and `operating`.

    `points`: at most 200 of the curve, with `threshold` (None for the first), `false_positive_rate` and `recall`.
    `operating`: for each recall (the paper's two, of its classes) `wanted`, the smallest `false_positive_rate` that
    reaches it, `recall` and `threshold` there, and `paper`, the share that the paper's stays below, or None.
    Without both positives and negatives `auc` is None, and there are no points.
    """
    points = curve(positive, scores)
    known = applies(classes) and name in AUC
    operating: list[dict[str, Any]] = []
    for recall, paper in OPERATING[name] if known else [(recall, None) for recall in RECALLS]:
        if points:
            first = int(np.argmax(points.recall >= recall))
            operating.append({"wanted": recall, **_point(points, first), "paper": paper})
    return {
        "name": name,
        "positives": int(positive.sum()),
        "negatives": int((~positive).sum()),
        "auc": float(metrics.auc(points.false_positive_rate, points.recall)) if points else None,
        "paper_auc": AUC[name] if known else None,
        "points": [_point(points, index) for index in thinned(len(points.recall))] if points else [],
        "operating": operating,
    }


def _point(points: Curve, index: int) -> dict[str, Any]:
    threshold = float(points.threshold[index])
    return {
        "threshold": None if np.isinf(threshold) else threshold,
        "false_positive_rate": float(points.false_positive_rate[index]),
        "recall": float(points.recall[index]),
    }


def threshold_for(positive: np.ndarray, scores: np.ndarray, recall: float) -> float:
    """Returns the highest threshold at which at least `recall` of the positives score as much or more.

    `positive`: bool [n], at least one of them true; `scores`: float [n]; `recall`: above 0, at most 1.
    """
    ranked = np.sort(scores[positive])[::-1]
    # Slightly less, since rounding must not make 0.95 × 20 ask for 20 of 20.
    return float(ranked[max(math.ceil(recall * len(ranked) - 1e-9), 1) - 1])


def cost(positive: np.ndarray, scores: np.ndarray, recall: float) -> dict[str, Any]:
    """Returns what a `recall` takes.

    `wanted` (that recall), `threshold`; `recall` (of the positives), `false_positives` (of the negatives), `looked_at`
    (of all images) and `precision` (positives of those looked at), each a `share`; and the count `missed`.
    """
    threshold = threshold_for(positive, scores, recall)
    flagged = scores.astype(np.float64) >= threshold
    hits, calls, positives = int((flagged & positive).sum()), int(flagged.sum()), int(positive.sum())
    return {
        "wanted": recall,
        "threshold": threshold,
        "recall": share(hits, positives),
        "missed": positives - hits,
        "false_positives": share(calls - hits, len(positive) - positives),
        "looked_at": share(calls, len(positive)),
        "precision": share(hits, calls),
    }


def thresholds(
    name: str, positive: np.ndarray, scores: np.ndarray, chosen: float, recalls: Sequence[float]
) -> dict[str, Any] | None:
    """Returns `name`, `chosen` and `rows` (each a `cost`) and `curve`, at most 200 points; None without a positive.

    A point has `recall` and `looked_at`, the share of images to look at for it.
    """
    if not positive.any():
        return None
    ranked, every = np.sort(scores[positive])[::-1], np.sort(scores)
    points = ranked[thinned(len(ranked))]
    flagged = len(every) - np.searchsorted(every, points, side="left")
    hits = len(ranked) - np.searchsorted(ranked[::-1], points, side="left")
    return {
        "name": name,
        "chosen": cost(positive, scores, chosen),
        "rows": [cost(positive, scores, recall) for recall in sorted({*recalls, chosen})],
        "curve": [
            {"recall": float(hit / len(ranked)), "looked_at": float(calls / len(every))}
            for hit, calls in zip(hits, flagged, strict=True)
        ],
    }


def reliability(scores: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """Returns `temperature`, `bins`, `ece`, `confidence`, `accuracy`, `cross_fitted` and the two `curves`.

    `ece` has `scores`, `calibrated` (by `temperature`, which was fitted on these very images) and `cross_fitted`: each
    half of the images by the temperature of the other half, whose two values are `cross_fitted`; None with fewer than
    two images per class. `confidence`: the mean highest score and probability. A curve is a list of bins with `low`,
    `high`, `count`, `confidence` and `accuracy`, empty bins left out.
    """
    probabilities = calibration.calibrate(scores, temperature)
    fitted = cross_fitted(scores, labels)
    return {
        "temperature": float(temperature),
        "bins": BINS,
        "accuracy": float((scores.argmax(axis=1) == labels).mean()),
        "confidence": {
            "scores": float(scores.max(axis=1).astype(np.float64).mean()),
            "calibrated": float(probabilities.max(axis=1).astype(np.float64).mean()),
        },
        "ece": {
            "scores": calibration.expected_calibration_error(scores, labels, BINS),
            "calibrated": calibration.expected_calibration_error(probabilities, labels, BINS),
            "cross_fitted": calibration.expected_calibration_error(fitted[0], labels, BINS) if fitted else None,
        },
        "cross_fitted": list(fitted[1]) if fitted else None,
        "curves": {
            name: [vars(part) for part in calibration.reliability(values, labels, BINS)]
            for name, values in (("scores", scores), ("calibrated", probabilities))
        },
    }


def halves(count: int) -> np.ndarray:
    """Returns which of two halves an image is in: bool [count], the same every time."""
    return np.random.default_rng(0).permutation(count) % 2 == 0


def cross_fitted(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, tuple[float, float]] | None:
    """Returns probabilities, float32 [n, classes], each from a temperature fitted on the other half, and both of those.

    None with fewer than two images per class.
    """
    if len(labels) < 2 * scores.shape[1]:
        return None
    first = halves(len(labels))
    with np.errstate(divide="ignore"):
        logarithms = np.log(scores.astype(np.float64))
    probabilities = np.empty(scores.shape, np.float32)
    temperatures = []
    for part in (first, ~first):
        temperatures.append(calibration.fit_temperature(logarithms[~part], labels[~part]))
        probabilities[part] = calibration.calibrate(scores[part], temperatures[-1])
    return probabilities, (temperatures[0], temperatures[1])
