"""Two classifiers on the same images: how sure it is that one is right more often.

Only the images that exactly one of them labels right tell them apart. `gained`: those that the candidate alone labels
right; `lost`: those that the champion alone does; `count`: all images, both right and both wrong included.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats


class Pairs(NamedTuple):
    """The images of a comparison, counted."""

    gained: int
    lost: int
    count: int

    @property
    def difference(self) -> float:
        """The candidate's share of right labels less the champion's, in [-1, 1]; 0 without images."""
        return (self.gained - self.lost) / self.count if self.count else 0.0


class Interval(NamedTuple):
    """Limits of a difference of shares, and the standard error that they were made of."""

    low: float
    high: float
    error: float


def pairs(candidate: np.ndarray, champion: np.ndarray) -> Pairs:
    """Returns the counts of two arrays, bool [n], that say which images each labels right, in the same order."""
    if candidate.shape != champion.shape:
        raise ValueError(f"{candidate.shape} and {champion.shape} labels are not of the same images")
    return Pairs(int((candidate & ~champion).sum()), int((champion & ~candidate).sum()), len(candidate))


def p_better(found: Pairs) -> float:
    """Returns how likely so many gains would be by chance: McNemar's test, exact and one-sided; 1 without a difference.

    McNemar 1947; exact: under no difference a discordant image is a gain as often as a loss.
    """
    discordant = found.gained + found.lost
    if not discordant:
        return 1.0
    return float(stats.binomtest(found.gained, discordant, 0.5, alternative="greater").pvalue)


def p_different(found: Pairs) -> float:
    """Returns `p_better`'s two-sided counterpart."""
    discordant = found.gained + found.lost
    return float(stats.binomtest(found.gained, discordant, 0.5).pvalue) if discordant else 1.0


def smallest_better(found: Pairs, level: float) -> float | None:
    """Returns the smallest difference that `p_better` would call better at `level`, of as many discordant images.

    None where even gains alone would not do.
    """
    discordant = found.gained + found.lost
    gained = int(stats.binom.isf(level, discordant, 0.5)) + 1 if discordant else 1
    return None if gained > discordant else (2 * gained - discordant) / found.count


def paired_interval(found: Pairs, confidence: float) -> Interval:
    """Returns the two-sided interval of the difference at `confidence`, such as 0.95.

    Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions": Wald's interval
    after half an image is added to each of the four cells. Its error does not vanish without discordant images, and
    Wald's intervals, which are too short where images are few, come close to what they promise.
    """
    total = found.count + 2
    middle = (found.gained - found.lost) / total
    error = np.sqrt((found.gained + found.lost + 1) - (found.gained - found.lost) ** 2 / total) / total
    reach = normal_quantile((1 - confidence) / 2) * error
    return Interval(max(-1.0, float(middle - reach)), min(1.0, float(middle + reach)), float(error))


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
    low, high = wilson(hits, count, confidence)
    other_low, other_high = wilson(other_hits, other_count, confidence)
    difference = share - other
    return (
        difference - math.hypot(share - low, other_high - other),
        difference + math.hypot(high - share, other - other_low),
    )


def wilson(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns Wilson's score interval of a share, without correction for continuity, for `count` of 1 or more.

    Wilson 1927; unlike the normal approximation it holds for few images and for shares near 0 and 1.
    """
    z = normal_quantile((1 - confidence) / 2)
    middle = (hits + z * z / 2) / (count + z * z)
    reach = z / (count + z * z) * math.sqrt(hits * (count - hits) / count + z * z / 4)
    # Rounding alone would leave a hair beyond.
    return max(0.0, middle - reach), min(1.0, middle + reach)
