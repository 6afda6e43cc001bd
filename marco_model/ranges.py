"""Which numbers a field of a dataclass may hold, with the same words for all that do not fit."""

import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

from marco_model.errors import InputError


class Range(NamedTuple):
    """Finite numbers within limits, which have the names that pydantic gives them."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value is in the range; NaN and infinities are in none."""
        limits = self._asdict().items()
        return abs(value) < math.inf and all(
            getattr(operator, name)(value, limit) for name, limit in limits if limit is not None
        )

    def __str__(self) -> str:
        words = zip(("at least", "above", "at most", "below"), self, strict=True)
        return " and ".join(f"{word} {limit}" for word, limit in words if limit is not None)


def check(section: str, settings: Any, ranges: Mapping[str, Range]) -> None:
    """Raises `InputError` for the first field of `settings`, a `section`, that is outside its range; None is in all."""
    for name, allowed in ranges.items():
        value = getattr(settings, name)
        if value is not None and not allowed.holds(value):
            finite = "" if abs(value) < math.inf else "a finite number, "
            raise InputError(f"{section}.{name} is {value}; it must be {finite}{allowed}")
