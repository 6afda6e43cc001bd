"""Shares of counts, with how far chance may have moved them."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

LEVEL = 0.95


def wilson(found: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns the Wilson score interval of a share, without correction for continuity, for `count` of 1 or more.

    Wilson 1927; unlike the normal approximation it holds for few images and for shares near 0 and 1.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, weight = found / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    # Rounding alone would leave a hair beyond.
    return max(0.0, middle - half), min(1.0, middle + half)


def share(found: int, count: int) -> dict[str, Any]:
    """Returns `found`, `count`, `share`, `low` and `high`; the last three are None where there is nothing to count."""
    if not count:
        return {"found": 0, "count": 0, "share": None, "low": None, "high": None}
    low, high = wilson(found, count)
    return {"found": int(found), "count": int(count), "share": found / count, "low": low, "high": high}
