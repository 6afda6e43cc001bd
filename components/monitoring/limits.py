"""What is a change, and what is too few images to tell."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from marco_model.errors import InputError


@dataclasses.dataclass(frozen=True)
class Limits:
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
        most: more are not looked at; the sample is drawn by a hash of their names.
    """

    alpha: float = 0.01
    statistic: float = 0.2
    confidence: float = 0.2
    embedding: float = 0.02
    classes: float = 0.15
    strangers: float = 0.25
    unreadable: float = 0.2
    least: int = 50
    most: int = 1000

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, float) and not (isinstance(value, (int, float)) and 0 < value < 1):
                raise InputError(f"limit {field.name} is {value!r}; give a number between 0 and 1")
        if not 10 <= self.least <= self.most:
            raise InputError(f"limits least {self.least} and most {self.most}: give 10 or more, the lower one first")


def read_limits(path: Path | None) -> Limits:
    """Reads limits from a JSON file with some of the fields; the defaults without one. Raises InputError."""
    if path is None:
        return Limits()
    try:
        told: dict[str, Any] = json.loads(path.read_text())
        return Limits(**told)
    except (OSError, ValueError, TypeError) as error:
        known = ", ".join(field.name for field in dataclasses.fields(Limits))
        raise InputError(f"{path} is no JSON object with some of {known}: {error}") from error
