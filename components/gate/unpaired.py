"""Two shares of different images, where there is nothing to pair."""

from __future__ import annotations

import math

from components.gate.paired import normal_quantile


def interval(hits: int, count: int, other_hits: int, other_count: int, confidence: float) -> tuple[float, float]:
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
