"""Do two samples come from one distribution? Permutation tests that share their permutations.

A sample is compared with a reference that is weighted to the sample's own mixture of strata, here predicted classes:
the images of a week with more crystals differ in everything from those of another, and only what differs within the
classes is a change of the images. Everything is a function of one vector of signed weights, +1/n for each of the n
images of the sample and minus the weight of each image of the reference, which sum to 0 within each stratum; a
permutation shuffles them within the strata.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

Measure = Callable[[np.ndarray], np.ndarray]
"""From signed weights, float32 [rows, n + m], to the distance that each row makes, float [rows]."""

_BLOCK = 500
# Besag and Clifford 1991: a test that was reached so often by chance is over; its p-value is none that counts.
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
    classes are no matter.
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
