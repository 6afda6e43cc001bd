"""What a drop can show: the kinds drawn for each class. Their order is that of our `labels-raw.csv`."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """One look of a class; `weight` is its share among the kinds of that class."""

    name: str
    label: str
    weight: float


KINDS: tuple[Kind, ...] = (
    Kind("clear drop", "Clear", 0.6),
    Kind("clear drop with dust", "Clear", 0.4),
    Kind("needles", "Crystals", 0.25),
    Kind("plates", "Crystals", 0.2),
    Kind("facetted blocks", "Crystals", 0.3),
    Kind("clusters", "Crystals", 0.25),
    Kind("phase separation", "Other", 0.72),
    Kind("dropless", "Other", 0.06),
    Kind("out of focus", "Other", 0.1),
    Kind("dark", "Other", 0.06),
    Kind("overexposed", "Other", 0.06),
    Kind("light precipitate", "Precipitate", 0.25),
    Kind("heavy precipitate", "Precipitate", 0.25),
    Kind("granular precipitate", "Precipitate", 0.3),
    Kind("film", "Precipitate", 0.2),
)
