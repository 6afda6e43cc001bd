"""How sure it is that one classifier is right more often than another: tests and intervals of shares.

On the same images only those that exactly one of the two labels right tell them apart: `gained` are those that the
candidate alone labels right, `lost` those that the champion alone does. On other images their shares are independent.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The images of a comparison: gains, losses, and all images, both right and both wrong included."""

    gained: int
    lost: int
    count: int

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


def pairs(candidate: np.ndarray, champion: np.ndarray) -> Pairs:
    """Returns the counts of two arrays, bool [n], that say which images each labels right, in the same order."""
    if candidate.shape != champion.shape:
        raise ValueError(f"{candidate.shape} and {champion.shape} labels are not of the same images")
    return Pairs(int((candidate & ~champion).sum()), int((champion & ~candidate).sum()), len(candidate))


def p_better(counts: Pairs) -> float:
    """Returns how likely so many gains would be by chance: McNemar's test, exact and one-sided; 1 without a difference.

    McNemar 1947; exact: under no difference a discordant image is a gain as often as a loss.
    """
    if not counts.discordant:
        return 1.0
    return float(stats.binomtest(counts.gained, counts.discordant, 0.5, alternative="greater").pvalue)


def p_different(counts: Pairs) -> float:
    """Returns the two-sided counterpart of `p_better`."""
    return float(stats.binomtest(counts.gained, counts.discordant, 0.5).pvalue) if counts.discordant else 1.0


def smallest_better(counts: Pairs, level: float) -> float | None:
    """Returns the smallest difference that `p_better` would call better at `level`, of as many discordant images.

    None if even gains alone would not be enough.
    """
    gained = int(stats.binom.isf(level, counts.discordant, 0.5)) + 1 if counts.discordant else 1
    return None if gained > counts.discordant else (2 * gained - counts.discordant) / counts.count


def paired_interval(counts: Pairs, confidence: float) -> Interval:
    """Returns the two-sided interval of the difference at `confidence`, such as 0.95.

    Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions": Wald's interval
    after half an image is added to each of the four cells. Its error does not vanish without discordant images, and
    its coverage stays close to `confidence` where images are few and Wald's intervals are too short.
    """
    total = counts.count + 2
    gain = counts.gained - counts.lost
    error = math.sqrt(counts.discordant + 1 - gain**2 / total) / total
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
