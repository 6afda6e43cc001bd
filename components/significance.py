"""How sure it is that one classifier is right more often than another: tests and intervals of shares.

On the same images only those that exactly one of the two labels right tell them apart: `gained` are those that the
candidate alone labels right, `lost` those that the champion alone does. On other images their shares are independent.

Images of a plate are alike: where plates are known, a plate's gains less its losses count together, and what would be
expected by chance is that of plates, not of images.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The images of a comparison: gains, losses, and all images, both right and both wrong included.

    `plates`: gains less losses, and images, of each plate, an image without a plate being one; empty where no two
    images share a plate.
    """

    gained: int
    lost: int
    count: int
    plates: tuple[tuple[int, int], ...] = ()

    @property
    def discordant(self) -> int:
        """The images that exactly one of the two labels right."""
        return self.gained + self.lost

    @property
    def difference(self) -> float:
        """The candidate's share of right labels less the champion's, in [-1, 1]; 0 without images."""
        return (self.gained - self.lost) / self.count if self.count else 0.0


class Interval(NamedTuple):
    """Limits of a difference of shares, and the standard error that they were computed from."""

    low: float
    high: float
    error: float


def pairs(candidate: np.ndarray, champion: np.ndarray, plates: np.ndarray | None = None) -> Pairs:
    """Returns the counts of two arrays, bool [n], that say which images each labels right, in the same order.

    `plates`: int [n], the same number for images of the same plate.
    """
    if candidate.shape != champion.shape:
        raise ValueError(f"{candidate.shape} and {champion.shape} labels are not of the same images")
    gained, lost = candidate & ~champion, champion & ~candidate
    by_plate: tuple[tuple[int, int], ...] = ()
    if plates is not None and len(np.unique(plates)) < len(plates):
        _, codes, sizes = np.unique(plates, return_inverse=True, return_counts=True)
        gains = np.bincount(codes, gained) - np.bincount(codes, lost)
        by_plate = tuple(zip(gains.astype(int).tolist(), sizes.tolist(), strict=True))
    return Pairs(int(gained.sum()), int(lost.sum()), len(candidate), by_plate)


def _chances(counts: Pairs) -> np.ndarray:
    """Returns how likely each number of gains is by chance, float64 [discordant + 1], if plates don't differ.

    Under no difference a plate's gains less its losses would have been the opposite as often: what is counted are those
    of them that are gains. Without plates that is the binomial distribution of McNemar's test.
    """
    if not counts.plates:
        return np.asarray(stats.binom.pmf(np.arange(counts.discordant + 1), counts.discordant, 0.5))
    chances = np.ones(1)
    for difference, _ in counts.plates:
        if difference:
            apart = np.zeros(abs(difference))
            chances = (np.concatenate([chances, apart]) + np.concatenate([apart, chances])) / 2
    return chances


def _gains(counts: Pairs) -> tuple[int, int]:
    """Returns the gains, and the most that could have been: of discordant images, or of the plates' differences."""
    if not counts.plates:
        return counts.gained, counts.discordant
    differences = [difference for difference, _ in counts.plates]
    return sum(max(difference, 0) for difference in differences), sum(map(abs, differences))


def p_better(counts: Pairs) -> float:
    """Returns how likely so many gains would be by chance: McNemar's test, exact and one-sided; 1 without a difference.

    McNemar 1947; exact: under no difference a discordant image is a gain as often as a loss. With plates it is Fisher's
    randomization test of their differences, also exact, of which McNemar's is the one where each image is a plate.
    """
    gains, most = _gains(counts)
    return float(min(_chances(counts)[gains:].sum(), 1.0)) if most else 1.0


def p_different(counts: Pairs) -> float:
    """Returns the two-sided counterpart of `p_better`."""
    swapped = dataclasses.replace(
        counts,
        gained=counts.lost,
        lost=counts.gained,
        plates=tuple((-difference, size) for difference, size in counts.plates),
    )
    return min(2 * p_better(counts), 2 * p_better(swapped), 1.0)


def smallest_better(counts: Pairs, level: float) -> float | None:
    """Returns the smallest difference that `p_better` would call better at `level`, of as many discordant images.

    None if even gains alone would not be enough.
    """
    _, most = _gains(counts)
    tails = _chances(counts)[::-1].cumsum()[::-1]
    enough = np.flatnonzero(tails <= level)
    return (2 * int(enough[0]) - most) / counts.count if most and len(enough) else None


def paired_interval(counts: Pairs, confidence: float) -> Interval:
    """Returns the two-sided interval of the difference at `confidence`, such as 0.95.

    Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions": Wald's interval
    after half an image is added to each of the four cells. Its error does not vanish without discordant images, and
    its coverage stays close to `confidence` where images are few and Wald's intervals are too short. With plates the
    error is at least that between plates (Cochran 1977, "Sampling Techniques", 9.3: the ratio of two sums over
    clusters).
    """
    total = counts.count + 2
    gain = counts.gained - counts.lost
    error = math.sqrt(counts.discordant + 1 - gain**2 / total) / total
    if len(counts.plates) > 1:
        differences, sizes = np.transpose(counts.plates)
        rest = differences - counts.difference * sizes
        error = max(error, math.sqrt(len(rest) / (len(rest) - 1) * float(rest @ rest)) / counts.count)
    reach = normal_quantile((1 - confidence) / 2) * error
    return Interval(max(-1.0, gain / total - reach), min(1.0, gain / total + reach), error)


@functools.lru_cache
def normal_quantile(tail: float) -> float:
    """Returns how many standard errors out a normal variable is beyond, on one side, with probability `tail`."""
    return float(stats.norm.isf(tail))


def unpaired_interval(
    hits: int, count: int, other_hits: int, other_count: int, confidence: float
) -> tuple[float, float]:
    """Returns the limits of `hits / count - other_hits / other_count` at a two-sided `confidence`.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10: the limits of
    Wilson's interval of each share, squared and added. Both counts are above 0.
    """
    share, other = hits / count, other_hits / other_count
    low, high = share_interval(hits, count, confidence)
    other_low, other_high = share_interval(other_hits, other_count, confidence)
    below, above = math.hypot(share - low, other_high - other), math.hypot(high - share, other - other_low)
    return share - other - below, share - other + above


def share_interval(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns Wilson's score interval of a share, without continuity correction, for `count` of 1 or more.

    Wilson 1927; unlike the normal approximation it holds for few images and for shares near 0 and 1.
    """
    interval = stats.binomtest(hits, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
