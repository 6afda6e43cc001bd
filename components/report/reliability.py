"""Whether scores mean what they say: reliability before and after temperature scaling, and the honest figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from marco_model.calibration import calibrated, expected_calibration_error, fit_temperature
from marco_model.calibration import reliability as reliability_of

BINS = 15


def reliability(scores: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """Returns `temperature`, `bins`, `ece`, `confidence`, `accuracy`, `cross_fitted` and the two curves.

    `ece` has `scores`, `calibrated` (by `temperature`, which was fitted on these very images) and `cross_fitted`: each
    half of the images by the temperature of the other half, whose two values are `cross_fitted`; None where there are
    fewer than two images a class. `confidence`: the mean highest score and probability. A curve is a list of bins with
    `low`, `high`, `count`, `confidence` and `accuracy`, empty bins left out.
    """
    probabilities = calibrated(scores, temperature)
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
        probabilities[part] = calibrated(scores[part], temperatures[-1])
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
