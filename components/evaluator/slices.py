"""The table of predictions judged slice by slice: all examples, by each feature, and by the pairs of their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from components.evaluator.metrics import confusion_matrix, metrics_of
from components.evaluator.names import CROSS, SLICES
from components.evaluator.prediction_table import scores_of

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
    """Returns every slice of a `components.evaluator.prediction_table` that has examples, all examples first."""
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
