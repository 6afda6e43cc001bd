"""The metrics of a four-way classifier as one TFMA metric that adds whole batches at a time.

TFMA's own metrics take an example at a time in Python, about a millisecond for each example and slice: as long as a
small network needs for its images. Here TFMA slices, combines, checks thresholds and writes; the arithmetic is NumPy's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import metrics_for_slice_pb2

from components.evaluator.names import COUNT, metric_names

CONFUSION_MATRIX = "multi_class_confusion_matrix_plot"
"""TFMA's own name for this plot."""


class Tally(NamedTuple):
    """What is added up for a slice.

    `confusion`: int64 [true class, predicted class]. `labels`: a list of int16 [n], `scores`: a list of
    float32 [n, AUC classes], kept because the AUC needs their order; 10 bytes an example and slice with two of them.
    """

    confusion: np.ndarray
    labels: list[np.ndarray]
    scores: list[np.ndarray]


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


def metrics_of(tally: Tally, classes: Sequence[str], auc_classes: Sequence[str]) -> dict[str, float]:
    """Returns the values by `metric_names`; NaN where a slice lacks the examples to say."""
    confusion = tally.confusion

    def share(part: float, whole: float) -> float:
        return float(part / whole) if whole else float("nan")

    labels = np.concatenate(tally.labels) if tally.labels else np.zeros([0], np.int16)
    scores = np.concatenate(tally.scores) if tally.scores else np.zeros([0, len(auc_classes)], np.float32)
    hits = confusion.diagonal()
    values = [share(hits.sum(), confusion.sum())]
    values += [share(hits[index], confusion[:, index].sum()) for index in range(len(classes))]
    values += [share(hits[index], confusion[index].sum()) for index in range(len(classes))]
    values += [
        area_under_roc(labels == list(classes).index(name), scores[:, column])
        for column, name in enumerate(auc_classes)
    ]
    return dict(zip(metric_names(classes, auc_classes), values, strict=True))


class _Combiner(beam.CombineFn):
    """Adds batches to a `Tally`."""

    def __init__(self, classes: Sequence[str], auc_classes: Sequence[str]):
        self._classes = tuple(classes)
        self._auc_classes = tuple(auc_classes)
        self._columns = [self._classes.index(name) for name in self._auc_classes]

    def create_accumulator(self) -> Tally:
        return Tally(np.zeros([len(self._classes)] * 2, np.int64), [], [])

    def add_input(self, accumulator: Tally, element: Any) -> Tally:
        labels = np.asarray(element.labels).reshape(-1)
        scores = np.asarray(element.predictions).reshape(len(labels), len(self._classes))
        accumulator.labels.append(labels.astype(np.int16))
        accumulator.scores.append(scores[:, self._columns].astype(np.float32))
        return accumulator._replace(confusion=accumulator.confusion + confusion_matrix(labels, scores))

    def merge_accumulators(self, accumulators: Iterable[Tally]) -> Tally:
        merged = self.create_accumulator()
        for one in accumulators:
            merged.labels.extend(one.labels)
            merged.scores.extend(one.scores)
            merged = merged._replace(confusion=merged.confusion + one.confusion)
        return merged

    def compact(self, accumulator: Tally) -> Tally:
        if len(accumulator.labels) < 2:
            return accumulator
        labels, scores = np.concatenate(accumulator.labels), np.concatenate(accumulator.scores)
        return Tally(accumulator.confusion, [labels], [scores])

    def extract_output(self, accumulator: Tally) -> dict[Any, Any]:
        values = {COUNT: float(accumulator.confusion.sum())}
        values |= metrics_of(accumulator, self._classes, self._auc_classes)
        # The keys of thresholds have `example_weighted` unset.
        output: dict[Any, Any] = {
            metric_types.MetricKey(name, example_weighted=None): value for name, value in values.items()
        }
        output[metric_types.PlotKey(CONFUSION_MATRIX, example_weighted=None)] = _plot(accumulator.confusion)
        return output


def _plot(confusion: np.ndarray) -> Any:
    plot = metrics_for_slice_pb2.MultiClassConfusionMatrixAtThresholds()
    matrix = plot.matrices.add(threshold=0.0)
    for (actual, predicted), count in np.ndenumerate(confusion):
        matrix.entries.add(actual_class_id=actual, predicted_class_id=predicted, num_weighted_examples=float(count))
    return plot


def _computations(classes: Sequence[str], auc_classes: Sequence[str], **_: Any) -> list[Any]:
    names = [COUNT, *metric_names(classes, auc_classes)]
    keys: list[Any] = [metric_types.MetricKey(name, example_weighted=None) for name in names]
    keys.append(metric_types.PlotKey(CONFUSION_MATRIX, example_weighted=None))
    return [metric_types.MetricComputation(keys=keys, preprocessors=[], combiner=_Combiner(classes, auc_classes))]


class ClassificationMetrics(metric_types.Metric):
    """Count, accuracy, precision and recall of each class, AUC of some classes against the rest, confusion matrix.

    Takes extracts whose `labels` are int [n] and `predictions` float [n, classes]: a batch of one slice.
    """

    def __init__(self, classes: Sequence[str], auc_classes: Sequence[str], name: str = "classification_metrics"):
        """Takes the class names in index order, and those of which AUC is wanted."""
        super().__init__(_computations, classes=list(classes), auc_classes=list(auc_classes), name=name)


metric_types.register_metric(ClassificationMetrics)
