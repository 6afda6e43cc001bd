"""Temperature scaling, which makes scores probabilities, and how far confidence is from accuracy.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599): dividing the logits by one number leaves
the order of the classes as it is, and makes the softmax the best probabilities that such a number can. MARCO is trained
with label smoothing, which pulls the highest score to about 0.925 however sure the network is.
"""

import dataclasses

import numpy as np
from scipy import optimize, special

from marco_model.errors import InputError

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures beyond these would only result from a handful of examples, all right or all wrong."""
_LEAST_LOG = float(np.log(np.finfo(np.float32).tiny))
"""Replaces the logarithm of a score that float32 rounded to 0, so that no likelihood is infinite."""


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Confidence, the highest probability of an example, against accuracy in bins of equal width.

    `edges`: float64 [bins + 1] from 0 to 1; a bin includes its upper edge. `count`: int64 [bins].
    `confidence`, `accuracy`: float64 [bins], means over a bin's examples, NaN where it has none.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def fit_temperature(log_scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature under which the labels are most likely, between `LOWEST` and `HIGHEST`.

    `log_scores`: float [n, classes], logits or logarithms of scores, which differ by a constant per row and so give the
    same result; `labels`: int [n]. Raises `InputError` if there are no examples, or if the two don't fit each other.
    """
    logits = np.asarray(log_scores, np.float64)
    labels = _checked(logits, labels)
    logits = np.maximum(special.log_softmax(logits, axis=1), _LEAST_LOG)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return float(-special.log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean())

    # The loss is convex in 1 / T, so it has a single minimum along log T.
    bounds = (np.log(LOWEST), np.log(HIGHEST))
    minimum = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(minimum.x))


def calibrate(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Returns probabilities, float32 [n, classes]: the softmax of log(scores) / temperature, for positive temperatures.

    `scores`: float [n, classes], rows summing to 1.
    """
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.asarray(scores, np.float64))
    return np.asarray(special.softmax(logarithms / temperature, axis=1), np.float32)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """Returns the reliability diagram's numbers for float [n, classes] probabilities and int [n] labels.

    Raises `InputError` if there are no examples, or if the two don't fit each other.
    """
    probabilities = np.asarray(probabilities, np.float64)
    labels = _checked(probabilities, labels)
    edges = np.linspace(0, 1, bins + 1)
    highest = probabilities.max(axis=1)
    places = np.digitize(highest, edges[1:-1], right=True)
    count = np.bincount(places, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(places, weights=values, minlength=bins)
        return np.divide(sums, count, out=np.full(bins, np.nan), where=count > 0)

    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    return Reliability(edges, count, mean(highest), mean(right))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Returns the mean difference between confidence and accuracy over bins, weighted by examples: 0 to 1, at best 0.

    Takes and raises what `reliability` does.
    """
    diagram = reliability(probabilities, labels, bins)
    gaps = np.nan_to_num(np.abs(diagram.accuracy - diagram.confidence))
    return float((diagram.count * gaps).sum() / diagram.count.sum())


def _checked(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the labels as int64 [n] if they fit rows [n, classes]."""
    labels = np.asarray(labels)
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or not len(rows):
        raise InputError(
            f"calibration got values of shape {rows.shape} and labels of shape {labels.shape}; give [n, classes] and "
            "[n], of one example or more"
        )
    labels = labels.astype(np.int64)
    if np.isnan(rows).any() or labels.min() < 0 or labels.max() >= rows.shape[1]:
        raise InputError(
            f"calibration got labels from {labels.min()} to {labels.max()} for {rows.shape[1]} classes, and "
            f"{int(np.isnan(rows).any(axis=1).sum())} examples without numbers; give labels of the classes and numbers"
        )
    return labels
