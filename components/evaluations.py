"""What TFMA computes, over which slices, and the thresholds that decide the blessing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from components.prediction_table import scores_of
from marco_data import contract
from marco_model.errors import InputError
from marco_model.labels import CLASSES
from marco_model.store import is_remote

SLICES = (contract.INSTITUTION, contract.IMAGER)
"""The features by whose values examples are sliced, besides all of them together."""
CROSS = SLICES
"""The features by whose pairs of values they are sliced too: an imager may do well in one place and not in another."""
TIMES = " × "
CROSS_NAME = TIMES.join(CROSS)
"""What the slices by pairs are called: `institution × imager`, and one of them `CSIRO × Rigaku Minstrel`."""

OVERALL, ALL = "overall", "all"
COUNT = "example_count"
AUC_CLASSES = ("Crystals", "Precipitate")
"""The classes of the four whose ROC Bruno et al. 2018 report."""


def auc_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes of which AUC is taken: the paper's two of MARCO's four, all of any other scheme."""
    return AUC_CLASSES if tuple(classes) == CLASSES else tuple(classes)


def metric_names(classes: Sequence[str], auc_classes: Sequence[str]) -> list[str]:
    """Returns the names of the metrics that are shares, such as `accuracy`, `recall/Crystals`, `auc/Crystals`."""
    by_class = [f"{kind}/{name}" for kind in ("precision", "recall") for name in classes]
    return ["accuracy", *by_class, *(f"auc/{name}" for name in auc_classes)]


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


if TYPE_CHECKING:
    import pandas as pd

SliceKey = tuple[tuple[str, str], ...]
"""Feature and value of each thing that a slice's examples share, as TFMA writes it; empty for all examples."""


class Slice(NamedTuple):
    """`metrics`: share by `names.metric_names`, NaN where undefined; `confusion`: int64 [true, predicted class]."""

    key: SliceKey
    metrics: dict[str, float]
    confusion: np.ndarray

    @property
    def count(self) -> int:
        """The examples in it."""
        return int(self.confusion.sum())


def judged(table: pd.DataFrame, classes: Sequence[str], auc_classes: Sequence[str]) -> list[Slice]:
    """Returns every slice of a `components.prediction_table` that has examples, all examples first."""
    labels, scores = table["label"].to_numpy(), scores_of(table)
    found = []
    for key, rows in _rows(table):
        chosen = labels[rows], scores[rows]
        confusion = confusion_matrix(*chosen)
        found.append(Slice(key, metrics_of(confusion, *chosen, classes, auc_classes), confusion))
    return found


def _rows(table: pd.DataFrame) -> Iterator[tuple[SliceKey, np.ndarray]]:
    if len(table):
        yield (), np.arange(len(table))
    for feature in SLICES:
        for value, rows in sorted(table.groupby(feature).indices.items()):
            yield ((feature, value),), rows
    for values, rows in sorted(table.groupby(list(CROSS)).indices.items()):
        yield tuple(zip(CROSS, values, strict=True)), rows


METRICS_FILE = "metrics.json"


def slice_metrics(evaluation_uri: str) -> dict[str, Any]:
    """Returns the content of `metrics.json` in an evaluation artifact (see above).

    Raises:
        InputError: there is none.
    """
    path = f"{evaluation_uri.rstrip('/')}/{METRICS_FILE}"
    if is_remote(path):
        import tensorflow as tf

        with tf.io.gfile.GFile(path) as file:
            return dict(json.load(file))
    if not Path(path).is_file():
        raise InputError(f"no evaluation at {evaluation_uri}: {METRICS_FILE} is missing; run the Evaluator first")
    return dict(json.loads(Path(path).read_text()))


def flat_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Returns metrics for MLflow: `eval/accuracy`, `eval/institution/CSIRO/recall/Crystals`, …; undefined left out.

    MLflow knows no ×: the slices of both features are `eval/institution x imager/CSIRO x Rigaku Minstrel/…`.
    """
    metrics = {}
    for kind, slices in evaluation["slices"].items():
        for value, found in slices.items():
            prefix = "eval" if kind == OVERALL else f"eval/{kind}/{value}".replace("×", "x")
            for name, number in found.items():
                if isinstance(number, int | float):
                    metrics[f"{prefix}/{name}"] = float(number)
    return metrics


def by_name(slices: Iterable[Slice]) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the `slices` of `metrics.json`, sorted by their values; no example in a kind leaves it empty."""
    found: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in (OVERALL, *SLICES, CROSS_NAME)}
    for one in slices:
        kind, value = (TIMES.join(texts) for texts in zip(*one.key, strict=True)) if one.key else (OVERALL, ALL)
        numbers = {name: None if math.isnan(share) else share for name, share in sorted(one.metrics.items())}
        found[kind][value] = {"count": one.count, **numbers, "confusion_matrix": one.confusion.tolist()}
    return {kind: dict(sorted(values.items())) for kind, values in found.items()}


def failures(validation: Any) -> Iterator[str]:
    """Yields a sentence for each threshold of a TFMA `ValidationResult` that was not met."""
    for in_slice in validation.metric_validations_per_slice:
        for failure in in_slice.failures:
            bound = failure.metric_threshold.value_threshold.lower_bound.value
            value = failure.metric_value.double_value.value
            got = "cannot be told from these examples" if math.isnan(value) else f"is {_below(value, bound)}"
            yield f"{failure.metric_key.name} {got}, and at least {bound:g} is wanted"


def _below(value: float, bound: float) -> str:
    """To four digits, or to all where four would look like the bound."""
    return f"{value:.4f}" if float(f"{value:.4f}") < bound else repr(value)


def eval_config(thresholds: Mapping[str, float], classes: Sequence[str], auc_classes: Sequence[str]) -> Any:
    """Returns the TFMA `EvalConfig`.

    `thresholds`: metric name → smallest value that is good enough over all examples, such as
    `{"accuracy": 0.8, "recall/Crystals": 0.9}`; without any, no model is ever blessed. `auc_classes`: the classes of
    which AUC against the rest is taken.

    Raises:
        InputError: a threshold names no metric, or is not between 0 and 1.
    """
    # TFMA 0.52 (TFX 1.21) no longer offers these at its top.
    from tensorflow_model_analysis.proto import config_pb2

    check_thresholds(thresholds, classes, auc_classes)
    spec = config_pb2.MetricsSpec()
    for name, bound in thresholds.items():
        # TFMA applies a threshold without slices to every slice; this one is for all examples together.
        threshold = config_pb2.PerSliceMetricThreshold(
            slicing_specs=[config_pb2.SlicingSpec()],
            threshold=config_pb2.MetricThreshold(
                value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": bound})
            ),
        )
        spec.per_slice_thresholds[name].thresholds.append(threshold)
    features = ([], *([feature] for feature in SLICES), list(CROSS))
    slices = [config_pb2.SlicingSpec(feature_keys=keys) for keys in features]
    return config_pb2.EvalConfig(model_specs=[config_pb2.ModelSpec()], metrics_specs=[spec], slicing_specs=slices)


def check_thresholds(thresholds: Mapping[str, float], classes: Sequence[str], auc_classes: Sequence[str]) -> None:
    """Raises InputError for a threshold that could never be met or checked."""
    known = metric_names(classes, auc_classes)
    for name, bound in thresholds.items():
        if name not in known:
            raise InputError(f"threshold {name!r} names no metric; choose from {', '.join(known)}")
        if not 0.0 <= bound <= 1.0:
            raise InputError(f"threshold {name!r} is {bound}; give a share between 0 and 1")
