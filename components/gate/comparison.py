"""Two tables of predictions over the same examples, paired and decided; needs neither TFX nor TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from components.evaluator.names import CROSS, CROSS_NAME, SLICES, TIMES
from components.evaluator.prediction_table import scores_of
from components.gate.decide import Decision, decide
from components.gate.rules import Rules
from marco_model.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_KEY = ["shard", "index"]


def compare(
    candidate: pd.DataFrame, champion: pd.DataFrame, columns: Sequence[int], classes: Sequence[str], rules: Rules
) -> Decision:
    """Decides between two tables of `components.evaluator.prediction_table`.

    `columns`: where among the champion's scores each of `classes` is. Raises `InputError` where the tables are not of
    the same examples.
    """
    candidate, champion = aligned(candidate, champion)
    labels = candidate["label"].to_numpy()
    recall = rules.recall_index(classes)
    return decide(
        scores_of(candidate).argmax(axis=1) == labels,
        scores_of(champion)[:, list(columns)].argmax(axis=1) == labels,
        positive=None if recall is None else labels == recall,
        slices=slices_of(candidate, rules.cross),
        rules=rules,
        recall_name="" if recall is None else f"recall/{classes[recall]}",
    )


def aligned(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns both in the order of (`shard`, `index`); raises `InputError` where they are not of the same examples."""
    one, other = (frame.sort_values(_KEY, ignore_index=True) for frame in (one, other))
    same = len(one) == len(other) and all(
        np.array_equal(one[name].to_numpy(), other[name].to_numpy()) for name in [*_KEY, "image_id", "label"]
    )
    if not same:
        raise InputError(
            f"the predictions are of different examples ({len(one):,} and {len(other):,}); judge both on the same"
        )
    return one, other


def slices_of(frame: pd.DataFrame, cross: bool) -> dict[str, np.ndarray]:
    """Returns the value of each example, str [n], by kind of slice; with `cross` of institution and imager together."""
    found = {name: frame[name].to_numpy().astype(str) for name in SLICES}
    if cross:
        pairs = zip(*(found[name] for name in CROSS), strict=True)
        found[CROSS_NAME] = np.array([TIMES.join(pair) for pair in pairs], str)
    return found
