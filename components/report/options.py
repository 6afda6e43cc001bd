"""What a report shows: the section `report` of a configuration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import ClassVar

from marco_model.errors import InputError

CRYSTALS = "Crystals"


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What is shown, how much of it, and what the pictures may cost."""

    # The class that must not be missed; empty: Crystals, where there is such a class.
    target: str = ""
    # The recall of it for which the threshold is told in the headline, and others beside it.
    recall: float = 0.98
    recalls: tuple[float, ...] = (0.9, 0.95, 0.98, 0.99, 1.0)
    # Images most in disagreement with their labels.
    disagreements: int = 12
    # Kinds of error (true class, predicted class) of which examples are shown, and examples of each.
    error_kinds: int = 12
    errors: int = 1
    # SmoothGrad over the examples of errors: noisy copies of an image, and seconds after which no other is begun.
    overlays: bool = True
    overlay_samples: int = 16
    overlay_seconds: float = 30.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for value in (self.recall, *self.recalls):
            if not 0 < value <= 1:
                raise ValueError(f"report.recall is {value}; give a share above 0, and 1 at most")
        for name in ("disagreements", "error_kinds", "errors"):
            if getattr(self, name) < 0:
                raise ValueError(f"report.{name} is {getattr(self, name)}; give 0 or more")
        if self.overlay_samples < 1 or self.overlay_seconds < 0:
            raise ValueError("report.overlay_samples is 1 or more, report.overlay_seconds 0 or more")

    def target_of(self, classes: Sequence[str]) -> str | None:
        """Returns the class that must not be missed, or None where there is none.

        Raises InputError where `target` is no class.
        """
        if self.target and self.target not in classes:
            raise InputError(f"report.target is {self.target!r}; give one of {', '.join(classes)}")
        return self.target or (CRYSTALS if CRYSTALS in classes else None)

    def to_json(self) -> str:
        """Returns the options as a component's parameter."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ReportOptions:
        """Reads what `to_json` wrote."""
        held = json.loads(text)
        return ReportOptions(**{**held, "recalls": tuple(held["recalls"])})
