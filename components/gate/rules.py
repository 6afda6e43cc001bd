"""What the gate asks of a candidate: `gate` of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from marco_model.errors import InputError

DEFAULT_RECALL_CLASS = "Crystals"
REGISTRY, NONE = "registry", "none"


def percent(confidence: float) -> str:
    """Returns a confidence as people say it, with its digits: `95%`, `99.8%`."""
    return f"{100 * confidence:.10g}%"


@dataclasses.dataclass(frozen=True)
class Rules:
    """Margins are shares: what accuracy, recall or a slice's accuracy may fall by, if it is shown to be no more.

    `confidence`: of the two-sided intervals; an equal model is called better in at most half of what is left, and loses
    its promotion to a slice by chance in as much. `caution`: how often, by chance, a model that is better in one of
    accuracy and recall and just equal in the other is refused; the more, the smaller the falls that are found.
    `recall_class`: whose recall must not fall; None for Crystals where there is such a class, otherwise for none.
    `smallest_slice`: slices of fewer images are not judged. `cross`: institution and imager together are slices too.
    """

    confidence: float = 0.95
    caution: float = 0.1
    accuracy_margin: float = 0.005
    recall_margin: float = 0.01
    slice_margin: float = 0.03
    recall_class: str | None = None
    smallest_slice: int = 20
    cross: bool = False

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"gate.confidence is {self.confidence}; give a share from 0.5 to below 1, such as 0.95")
        if not 0 < self.caution <= 0.5:
            raise ValueError(f"gate.caution is {self.caution}; give a share above 0, up to 0.5, such as 0.1")
        for name in ("accuracy_margin", "recall_margin", "slice_margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"gate.{name} is {getattr(self, name)}; give a share between 0 and 1, such as 0.01")
        if self.smallest_slice < 1:
            raise ValueError(f"gate.smallest_slice is {self.smallest_slice}; give at least 1")

    def recall_index(self, classes: Sequence[str]) -> int | None:
        """Returns the index of the class whose recall must not fall, or None.

        Raises `InputError` where `recall_class` is none of `classes`.
        """
        if self.recall_class is None:
            return list(classes).index(DEFAULT_RECALL_CLASS) if DEFAULT_RECALL_CLASS in classes else None
        if self.recall_class not in classes:
            raise InputError(f"gate.recall_class {self.recall_class!r} is no class; choose from {', '.join(classes)}")
        return list(classes).index(self.recall_class)
