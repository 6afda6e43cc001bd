"""Which images disagree most with a classifier, a share of each split."""

from __future__ import annotations

import math

import numpy as np

from marco_data.relabelling.scoring import Scored
from marco_data.shards import EVAL
from marco_model.errors import InputError


def check_share(share: float) -> None:
    """Raises `InputError` for a share that is none."""
    if not 0 < share <= 1:
        raise InputError(f"--share is {share}; give a share above 0 and up to 1, such as 0.05")


def label_probabilities(scored: Scored) -> np.ndarray:
    """Returns the probability of each record's own label, float32 [n]; disagreement is 1 minus that.

    It asks how little the classifier believes the label, whatever else it believes in. Log-odds of it rank alike; the
    margin to the best other class would rank an image lower that is torn between two other classes, though its label is
    as improbable.
    """
    rows: np.ndarray = scored.probabilities[np.arange(len(scored.labels)), scored.labels]
    return rows


def most_disagreeing(scored: Scored, share: float) -> dict[str, np.ndarray]:
    """Returns, by split, the rows of the `share` of its images whose labels are least probable, the least first.

    Of records with one id one counts, that of the evaluation set if it is there, as in ExampleGen. Equal probabilities
    go by id, so that the order of shards does not matter. At least one image of a split is taken, but none where all of
    its images count in another. Raises `InputError` for a share that is none.
    """
    check_share(share)
    probabilities = label_probabilities(scored)
    once = _once(scored)
    chosen = {}
    for split in sorted(set(scored.splits.tolist())):
        rows = once[scored.splits[once] == split]
        order = np.lexsort((scored.image_ids[rows], probabilities[rows]))
        chosen[split] = rows[order[: math.ceil(share * len(rows) - 1e-9)]]
    return chosen


def _once(scored: Scored) -> np.ndarray:
    """Returns the rows that count, one an id."""
    order = np.lexsort((np.arange(len(scored.splits)), scored.splits != EVAL))
    _, first = np.unique(scored.image_ids[order], return_index=True)
    return np.sort(order[first])
