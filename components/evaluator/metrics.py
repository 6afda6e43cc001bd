"""The metrics of a classifier from its scores, in NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.evaluator.names import metric_names


def confusion_matrix(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns int64 [true class, predicted class] of int [n] labels and float [n, classes] scores; argmax decides."""
    classes = scores.shape[1]
    cells = labels.astype(np.int64) * classes + scores.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def area_under_roc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Returns the exact AUC: how often a positive scores above a negative, ties counted half; NaN without both.

    `positive`: bool [n]; `scores`: float [n]. The rank-sum form (Hanley and McNeil 1982).
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2.0)[inverse.reshape(-1)]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def metrics_of(
    confusion: np.ndarray, labels: np.ndarray, scores: np.ndarray, classes: Sequence[str], auc_classes: Sequence[str]
) -> dict[str, float]:
    """Returns accuracy, precision and recall of each class and the AUC of some, each a share by `names.metric_names`.

    `confusion`: the `confusion_matrix` of `labels`, int [n], and `scores`, float [n, classes]. NaN where these
    examples cannot say.
    """

    def share(part: float, whole: float) -> float:
        return float(part / whole) if whole else float("nan")

    hits = confusion.diagonal()
    values = [share(hits.sum(), confusion.sum())]
    values += [share(hits[index], confusion[:, index].sum()) for index in range(len(classes))]
    values += [share(hits[index], confusion[index].sum()) for index in range(len(classes))]
    values += [area_under_roc(labels == index, scores[:, index]) for index in map(list(classes).index, auc_classes)]
    return dict(zip(metric_names(classes, auc_classes), values, strict=True))
