"""Names of the metrics and slices of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from marco_data import contract
from marco_model.labels import CLASSES

SLICES = (contract.INSTITUTION, contract.IMAGER)
"""The features by whose values examples are sliced, besides all of them together."""
CROSS = SLICES
"""The features by whose pairs of values they are sliced too: an imager may do well in one place and not in another."""
TIMES = " × "
CROSS_NAME = TIMES.join(CROSS)
"""What the slices by pairs are called: `institution × imager`, and one of them `CSIRO × Rigaku Minstrel`."""

OVERALL, ALL = "overall", "all"
COUNT = "example_count"
AUC_CLASSES = ("Crystals", "Precipitate")
"""The classes of the four whose ROC Bruno et al. 2018 report."""


def auc_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes of which AUC is taken: the paper's two of MARCO's four, all of any other scheme."""
    return AUC_CLASSES if tuple(classes) == CLASSES else tuple(classes)


def metric_names(classes: Sequence[str], auc_classes: Sequence[str]) -> list[str]:
    """Returns the names of the metrics that are shares, such as `accuracy`, `recall/Crystals`, `auc/Crystals`."""
    by_class = [f"{kind}/{name}" for kind in ("precision", "recall") for name in classes]
    return ["accuracy", *by_class, *(f"auc/{name}" for name in auc_classes)]
