"""Whether scores mean what they say: reliability before and after temperature scaling, and the honest figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from components.paired import wilson
from marco_model.calibration import calibrate, expected_calibration_error, fit_temperature
from marco_model.calibration import reliability as reliability_of
from marco_model.labels import CLASSES

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


def applies(classes: Sequence[str]) -> bool:
    """Tells whether the paper's figures are of these classes."""
    return tuple(classes) == CLASSES


def order(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes in the order in which a table shows them: the paper's, of its four."""
    return ORDER if applies(classes) else tuple(classes)


LEVEL = 0.95


def share(found: int, count: int) -> dict[str, Any]:
    """Returns `found`, `count`, `share`, `low` and `high`; the last three are None where there is nothing to count."""
    if not count:
        return {"found": 0, "count": 0, "share": None, "low": None, "high": None}
    low, high = wilson(found, count, LEVEL)
    return {"found": int(found), "count": int(count), "share": found / count, "low": low, "high": high}


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
    known = applies(classes) and name in AUC
    told: dict[str, Any] = {
        "name": name,
        "positives": int(positive.sum()),
        "negatives": int((~positive).sum()),
        "auc": None if found is None else area(found),
        "paper_auc": AUC[name] if known else None,
        "points": [],
        "operating": [],
    }
    if found is None:
        return told
    told["points"] = [_point(found, index) for index in thinned(len(found.recall))]
    for wanted, there in OPERATING[name] if known else [(recall, None) for recall in RECALLS]:
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
    images) and `precision` (positives of those looked at), each a `components.report.curves.share`; and `missed`.
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


BINS = 15


def reliability(scores: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """Returns `temperature`, `bins`, `ece`, `confidence`, `accuracy`, `cross_fitted` and the two curves.

    `ece` has `scores`, `calibrated` (by `temperature`, which was fitted on these very images) and `cross_fitted`: each
    half of the images by the temperature of the other half, whose two values are `cross_fitted`; None where there are
    fewer than two images a class. `confidence`: the mean highest score and probability. A curve is a list of bins with
    `low`, `high`, `count`, `confidence` and `accuracy`, empty bins left out.
    """
    probabilities = calibrate(scores, temperature)
    found = cross_fitted(scores, labels)
    return {
        "temperature": float(temperature),
        "bins": BINS,
        "accuracy": float((scores.argmax(axis=1) == labels).mean()),
        "confidence": {
            "scores": float(scores.max(axis=1).astype(np.float64).mean()),
            "calibrated": float(probabilities.max(axis=1).astype(np.float64).mean()),
        },
        "ece": {
            "scores": expected_calibration_error(scores, labels, BINS),
            "calibrated": expected_calibration_error(probabilities, labels, BINS),
            "cross_fitted": expected_calibration_error(found[0], labels, BINS) if found else None,
        },
        "cross_fitted": list(found[1]) if found else None,
        "curves": {"scores": _curve(scores, labels), "calibrated": _curve(probabilities, labels)},
    }


def halves(count: int) -> np.ndarray:
    """Returns which of two halves an image is in: bool [count], the same every time."""
    return np.random.default_rng(0).permutation(count) % 2 == 0


def cross_fitted(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, tuple[float, float]] | None:
    """Returns probabilities, float32 [n, classes], no image's from a temperature that saw it, and both temperatures.

    None where there are fewer than two images a class.
    """
    if len(labels) < 2 * scores.shape[1]:
        return None
    first = halves(len(labels))
    with np.errstate(divide="ignore"):
        logarithms = np.log(scores.astype(np.float64))
    probabilities = np.empty(scores.shape, np.float32)
    temperatures = []
    for part in (first, ~first):
        temperatures.append(fit_temperature(logarithms[~part], labels[~part]))
        probabilities[part] = calibrate(scores[part], temperatures[-1])
    return probabilities, (temperatures[0], temperatures[1])


def _curve(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    found = reliability_of(probabilities, labels, BINS)
    return [
        {
            "low": float(found.edges[index]),
            "high": float(found.edges[index + 1]),
            "count": int(found.count[index]),
            "confidence": float(found.confidence[index]),
            "accuracy": float(found.accuracy[index]),
        }
        for index in np.flatnonzero(found.count)
    ]
