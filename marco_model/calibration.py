"""Temperature scaling, which makes scores probabilities, and how far confidence is from accuracy.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599): dividing the logits by one number leaves
the order of the classes as it is, and makes the softmax the best probabilities that such a number can. MARCO is trained
with label smoothing, which pulls the highest score to about 0.925 however sure the network is.
"""

import dataclasses

import numpy as np

from marco_model.errors import InputError

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures beyond these would only result from a handful of examples, all right or all wrong."""
ENOUGH_EXAMPLES = 100
"""With fewer a temperature says more of the examples than of the classifier, and that of the start is kept."""
_SPREAD = 0.5
"""How far the logarithm of a temperature is taken to be from the start's before any example is seen: 1.6 times."""
_LEAST_LOG = float(np.log(np.finfo(np.float32).tiny))
"""Replaces the logarithm of a score that float32 rounded to 0, so that no likelihood is infinite."""


@dataclasses.dataclass(frozen=True)
class Bin:
    """The `count` examples, 1 or more, whose confidence is above `low` and at most `high`.

    An example's confidence is its highest probability. `confidence`, `accuracy`: the means of the examples.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def fit_temperature(log_scores: np.ndarray, labels: np.ndarray, start: float | None = None) -> float:
    """Returns the temperature under which the labels are most likely, between `LOWEST` and `HIGHEST`.

    With a `start` it is shrunk towards that temperature: the logarithm is taken to be normally distributed around the
    start's, and thousands of examples outweigh that. With fewer than `ENOUGH_EXAMPLES` it is the start itself.

    `log_scores`: float [n, classes], logits or logarithms of scores, which differ by a constant per row and so give the
    same result; `labels`: int [n]. Raises `InputError` if there are no examples, or if the two don't fit each other.
    """
    from scipy import optimize, special

    logits = np.asarray(log_scores, np.float64)
    labels = _checked(logits, labels)
    logits = np.maximum(special.log_softmax(logits, axis=1), _LEAST_LOG)
    rows = np.arange(len(labels))

    if start is not None and len(labels) < ENOUGH_EXAMPLES:
        return start

    def loss(log_temperature: float) -> float:
        likelihood = special.log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].mean()
        distance = 0.0 if start is None else (log_temperature - np.log(start)) / _SPREAD
        return float(distance**2 / 2 / len(labels) - likelihood)

    # The likelihood is convex in 1 / T, so it has a single maximum along log T.
    bounds = (np.log(LOWEST), np.log(HIGHEST))
    minimum = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(minimum.x))


def calibrate(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Returns probabilities, float32 [n, classes]: the softmax of log(scores) / temperature, for positive temperatures.

    `scores`: float [n, classes], rows summing to 1.
    """
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.asarray(scores, np.float64))
    scaled = logarithms / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> list[Bin]:
    """Returns the bins of a reliability diagram, of equal width between 0 and 1, without those that have no examples.

    `probabilities`: float [n, classes]; `labels`: int [n]. Raises `InputError` if there are no examples, or if the two
    don't fit each other.
    """
    probabilities = np.asarray(probabilities, np.float64)
    labels = _checked(probabilities, labels)
    highest, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1).tolist()
    places = np.digitize(highest, edges[1:-1], right=True)
    members = [(place, places == place) for place in np.unique(places)]
    return [
        Bin(edges[place], edges[place + 1], int(own.sum()), float(highest[own].mean()), float(right[own].mean()))
        for place, own in members
    ]


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Returns the mean difference between confidence and accuracy over bins, weighted by examples: 0 to 1, at best 0.

    Takes and raises what `reliability` does.
    """
    diagram = reliability(probabilities, labels, bins)
    return sum(part.count * abs(part.accuracy - part.confidence) for part in diagram) / len(labels)


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
