"""One imager's images against a reference: every test, nothing decided yet."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from components.monitoring.limits import Limits
from components.monitoring.statistics import NAMES
from components.monitoring.table import Table
from components.monitoring.two_sample import (
    Measure,
    class_test,
    energy,
    kolmogorov_smirnov,
    permutation_tests,
    signed_weights,
)

STATISTIC, EMBEDDING, CLASSES, CONFIDENCE, STRANGERS = "statistic", "embedding", "classes", "confidence", "strangers"
TESTS = len(NAMES) + 4
"""For each imager."""

# A class with fewer images in the reference says nothing of what its images look like.
_FEW = 10
# Where more of the images are of such classes, the classes are not looked at one by one.
_LEFT_OUT = 0.2
_NEIGHBOUR = 3
_STRANGE = 0.99


@dataclasses.dataclass(frozen=True)
class Test:
    """What was compared and what came of it.

    `effect`: how large the difference is, 0 … 1, by `kind` as `Limits` says; `limit`: from where it counts. `before`,
    `after`: medians of a statistic, shares of the classes, a share of strangers.
    """

    kind: str
    name: str
    effect: float
    limit: float
    p_value: float
    before: float | list[float]
    after: float | list[float]


def compare(new: Table, old: Table, limits: Limits, tests: int, rng: np.random.Generator) -> list[Test]:
    """Compares images of one imager with a reference, both with at least `limits.least` rows.

    `tests`: how many there are in the whole check, which decides how small a p-value must be able to get.
    """
    permutations = max(1999, math.ceil(2 * tests / limits.alpha))
    return [*_within_classes(new, old, limits, permutations, rng), _classes(new, old, limits, permutations, rng)]


def _within_classes(new: Table, old: Table, limits: Limits, permutations: int, rng: np.random.Generator) -> list[Test]:
    is_new = np.arange(len(new) + len(old)) < len(new)
    strata, kept = _strata(np.concatenate([new.predicted, old.predicted]), is_new)
    is_new, strata = is_new[kept], strata[kept]
    statistics = np.concatenate([new.statistics, old.statistics])[kept]
    confidence = np.concatenate([new.scores.max(axis=1), old.scores.max(axis=1)])[kept]
    embedding, distances = energy(np.concatenate([new.embedding, old.embedding])[kept])
    measures: list[Measure] = [*map(kolmogorov_smirnov, statistics.T), kolmogorov_smirnov(confidence), embedding]
    weights = signed_weights(is_new, strata)
    least = [*[limits.statistic] * len(NAMES), limits.confidence, 0.0]
    results = permutation_tests(measures, weights, strata, permutations, rng, least)
    columns = [*statistics.T, confidence]
    named = [*((STATISTIC, name, limits.statistic) for name in NAMES), (CONFIDENCE, CONFIDENCE, limits.confidence)]
    found = [
        Test(kind, name, result.distance, limit, result.p_value, _median(column[~is_new]), _median(column[is_new]))
        for (kind, name, limit), result, column in zip(named, results[:-1], columns, strict=True)
    ]
    # By chance alone the distance is above 0, the more so the fewer images there are.
    excess = max(0.0, results[-1].distance - results[-1].by_chance)
    apart = float(distances[is_new][:, ~is_new].mean())
    coefficient = excess / max(2 * apart, 1e-9)
    found.append(Test(EMBEDDING, EMBEDDING, coefficient, limits.embedding, results[-1].p_value, 0.0, coefficient))
    return [*found, _strangers(distances, is_new, limits)]


def _strata(predicted: np.ndarray, is_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the predicted classes, int [n + m], and a mask of the rows whose class can be compared."""
    counts = {label: (is_new & (predicted == label)).sum() for label in np.unique(predicted)}
    old = {label: (~is_new & (predicted == label)).sum() for label in counts}
    usable = [label for label in counts if counts[label] and old[label] >= _FEW]
    kept = np.isin(predicted, usable)
    if (is_new & ~kept).sum() > _LEFT_OUT * is_new.sum():
        return np.zeros_like(predicted), np.ones_like(is_new)
    return predicted, kept


def _strangers(distances: np.ndarray, is_new: np.ndarray, limits: Limits) -> Test:
    """How many images have no neighbours among the reference, as near as almost all of the reference have."""
    from scipy.stats import fisher_exact

    inside = distances[~is_new][:, ~is_new]
    # The nearest of all is the image itself.
    usual = np.partition(inside, _NEIGHBOUR, axis=1)[:, _NEIGHBOUR]
    nearest = np.partition(distances[is_new][:, ~is_new], _NEIGHBOUR - 1, axis=1)[:, _NEIGHBOUR - 1]
    far = np.quantile(usual, _STRANGE)
    strange, strange_before = int((nearest > far).sum()), int((usual > far).sum())
    table = [[strange, len(nearest) - strange], [strange_before, len(usual) - strange_before]]
    p_value = float(fisher_exact(table, alternative="greater")[1])
    before, after = strange_before / len(usual), strange / len(nearest)
    return Test(STRANGERS, STRANGERS, max(0.0, after - before), limits.strangers, p_value, before, after)


def _classes(new: Table, old: Table, limits: Limits, permutations: int, rng: np.random.Generator) -> Test:
    counts = [np.bincount(table.predicted, minlength=table.scores.shape[1]) for table in (new, old)]
    distance, p_value = class_test(counts[0], counts[1], permutations, rng)
    shares = [(count / count.sum()).tolist() for count in counts]
    return Test(CLASSES, CLASSES, distance, limits.classes, p_value, shares[1], shares[0])


def _median(values: np.ndarray) -> float:
    return float(np.median(values))
