"""Tests whether two samples come from one distribution: permutation tests that share their permutations.

A sample is compared with a reference that is weighted to the sample's own mixture of strata, here predicted classes:
the images of a week with more crystals differ in everything from those of another, and only what differs within the
classes is a change of the images. Everything is a function of one vector of signed weights, +1/n for each of the n
images of the sample and minus the weight of each image of the reference, which sum to 0 within each stratum; a
permutation shuffles them within the strata.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic

from components import settings
from components.monitoring.statistics import NAMES, Table
from marco_model import errors

Share = Annotated[float, pydantic.Field(gt=0, lt=1, strict=True)]


class Limits(settings.Section):
    """An alarm is what is significant and large: both, so that neither chance nor a million images sets it off.

    Attributes:
        alpha: chance of one false alarm in a whole check, all imagers and tests together.
        statistic: a statistic's smallest difference that counts: Kolmogorov and Smirnov's distance, 0 … 1.
        confidence: the same for the highest score.
        embedding: the energy coefficient (share of the distance between two images that is due to the change), 0 … 1.
        classes: share of the images that are predicted another class than in the reference, 0 … 1.
        strangers: share of images that look like none of their imager's, more than the reference itself has.
        unreadable: share of an imager's images that could not be measured, 0 … 1.
        least: fewer images of an imager, here or in the reference, are too few.
        most: more are ignored; the sample is drawn by a hash of their names.
    """

    alpha: Share = 0.01
    statistic: Share = 0.2
    confidence: Share = 0.2
    embedding: Share = 0.02
    classes: Share = 0.15
    strangers: Share = 0.25
    unreadable: Share = 0.2
    least: int = pydantic.Field(50, ge=10)
    most: int = 1000

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "Limits":
        if self.least > self.most:
            raise ValueError(f"limits least {self.least} and most {self.most}: give the lower one first")
        return self


def read_limits(path: Path | None) -> Limits:
    """Reads limits from a JSON file with some of the fields; the defaults without one. Raises InputError."""
    if path is None:
        return Limits()
    with errors.translated(
        errors.InputError, f"{path} is not a JSON object of limits: {{}}", OSError, ValueError, RecursionError
    ):
        values = json.loads(path.read_text())
    return settings.parse(Limits, values, str(path))


Measure = Callable[[np.ndarray], np.ndarray]
"""From signed weights, float32 [rows, n + m], to the distance that each row makes, float [rows]."""

_BLOCK = 500
# Besag and Clifford 1991: a test that was reached so often by chance is over, and its p-value does not count.
_ENOUGH = 20


@dataclasses.dataclass(frozen=True)
class Result:
    """A distance, what it is on average by chance, and how probable one as large is by chance."""

    distance: float
    by_chance: float
    p_value: float


def permutation_tests(
    measures: Sequence[Measure],
    weights: np.ndarray,
    strata: np.ndarray,
    permutations: int,
    rng: np.random.Generator,
    least: Sequence[float] | None = None,
) -> list[Result]:
    """Tests each measure with the same permutations, at most `permutations` of them.

    `weights`: float32 [n + m] of `signed_weights`; `strata`: int [n + m]. The p-value is (1 + times reached) / (1 +
    permutations). It ends early when every measure was reached 20 times by chance or is less than its `least`: then
    a smaller p-value would change nothing.
    """
    observed = np.array([measure(weights[None])[0] for measure in measures], np.float64)
    counts = observed >= np.array(least if least is not None else np.zeros(len(measures)))
    reached, total, done = np.zeros(len(measures), int), np.zeros(len(measures)), 0
    while done < permutations and (done == 0 or (counts & (reached < _ENOUGH)).any()):
        rows = min(_BLOCK, permutations - done)
        shuffled = _shuffled(weights, strata, rows, rng)
        for index, measure in enumerate(measures):
            distances = measure(shuffled)
            # A permutation that gives the same distance but for rounding has reached it.
            reached[index] += int((distances >= observed[index] * (1 - 1e-5) - 1e-9).sum())
            total[index] += float(distances.sum())
        done += rows
    return [
        Result(float(distance), float(mean), (1 + int(times)) / (1 + done))
        for distance, mean, times in zip(observed, total / done, reached, strict=True)
    ]


def signed_weights(is_new: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Returns float32 [n + m]: 1/n for images of the sample (bool `is_new`), negative for those of the reference.

    The reference's weights sum to -1 and have the sample's shares of strata (int [n + m]). Each stratum must have both.
    """
    weights = np.empty(len(is_new), np.float64)
    count = is_new.sum()
    for stratum in np.unique(strata):
        inside = strata == stratum
        new, old = inside & is_new, inside & ~is_new
        if not new.any() or not old.any():
            raise ValueError(f"stratum {stratum} has {new.sum()} new images and {old.sum()} of the reference")
        weights[new] = 1 / count
        weights[old] = -new.sum() / count / old.sum()
    return weights.astype(np.float32)


def _shuffled(weights: np.ndarray, strata: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    shuffled = np.repeat(weights[None], rows, 0)
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        shuffled[:, inside] = rng.permuted(shuffled[:, inside], axis=1)
    return shuffled


def kolmogorov_smirnov(values: np.ndarray) -> Measure:
    """The largest difference of the distribution functions of `values`, float [n + m]: 0 … 1; ties are no matter."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(values) - 1)

    def measure(weights: np.ndarray) -> np.ndarray:
        sums = np.cumsum(weights[:, order], axis=1, dtype=np.float32)[:, ends]
        return np.abs(sums).max(axis=1)

    return measure


def energy(points: np.ndarray) -> tuple[Measure, np.ndarray]:
    """The squared energy distance (Székely and Rizzo 2013) of `points`, float32 [n + m, d], and the distances.

    2 E|X-Y| - E|X-X'| - E|Y-Y'| is, with signed weights w, -w'Dw.
    """
    from sklearn.metrics import pairwise_distances

    distances = pairwise_distances(points.astype(np.float32)).astype(np.float32)

    def measure(weights: np.ndarray) -> np.ndarray:
        return -np.einsum("ij,ij->i", weights @ distances, weights)

    return measure, distances


def class_test(
    new: np.ndarray, reference: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Compares counts of classes, int [C] each; returns their total variation distance, 0 … 1, and a p-value.

    The statistic is Pearson's chi-square with its exact distribution given the margins, by simulation, so that rare
    classes do no harm.
    """
    together = new + reference
    seen = together > 0
    new, reference, together = new[seen], reference[seen], together[seen]
    shares = new / new.sum(), reference / reference.sum()
    expected = together * new.sum() / together.sum()

    def chi_square(counts: np.ndarray) -> np.ndarray:
        difference = (counts - expected) ** 2
        others = together - expected
        return (difference / expected + difference / others).sum(axis=-1)

    drawn = rng.multivariate_hypergeometric(together, int(new.sum()), size=permutations)
    reached = int((chi_square(drawn) >= chi_square(new) * (1 - 1e-9)).sum())
    return float(np.abs(shares[0] - shares[1]).sum() / 2), (1 + reached) / (1 + permutations)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number (Holm 1979): those below alpha keep the chance of one error at it."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


STATISTIC, EMBEDDING, CLASSES, CONFIDENCE, STRANGERS = "statistic", "embedding", "classes", "confidence", "strangers"
TESTS = len(NAMES) + 4
"""For each imager."""

# A class with fewer images in the reference says nothing of what its images look like.
_FEW = 10
# Where more of the images are of such classes, the test ignores the classes.
_LEFT_OUT = 0.2
_NEIGHBOUR = 3
_STRANGE = 0.99


@dataclasses.dataclass(frozen=True)
class Test:
    """A comparison and its result.

    `effect`: how large the difference is, 0 … 1, by `kind` as `Limits` says; `limit`: from where it counts. `before`,
    `after`: medians of a statistic, shares of the classes, a share of strangers. In the whole check: `adjusted`, the
    p-value adjusted for all other tests, and whether it is an `alarm`.
    """

    kind: str
    name: str
    effect: float
    limit: float
    p_value: float
    before: float | list[float]
    after: float | list[float]
    adjusted: float = 1.0
    alarm: bool = False


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
    comparisons = [
        Test(kind, name, result.distance, limit, result.p_value, _median(column[~is_new]), _median(column[is_new]))
        for (kind, name, limit), result, column in zip(named, results[:-1], columns, strict=True)
    ]
    # By chance alone the distance is above 0, the more so the fewer images there are.
    excess = max(0.0, results[-1].distance - results[-1].by_chance)
    apart = float(distances[is_new][:, ~is_new].mean())
    coefficient = excess / max(2 * apart, 1e-9)
    comparisons.append(Test(EMBEDDING, EMBEDDING, coefficient, limits.embedding, results[-1].p_value, 0.0, coefficient))
    return [*comparisons, _strangers(distances, is_new, limits)]


def _strata(predicted: np.ndarray, is_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the predicted classes, int [n + m], and a mask of the rows whose class can be compared."""
    classes = int(predicted.max()) + 1
    new, old = (np.bincount(predicted[rows], minlength=classes) for rows in (is_new, ~is_new))
    kept = ((new > 0) & (old >= _FEW))[predicted]
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
