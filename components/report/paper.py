"""What Bruno et al. 2018 report of their classifier, on 47,062 test images of the MARCO data set.

PLoS ONE 13(6): e0198883: Table IV, the text on Fig. 3 (ROC), and the abstract.
"""

from __future__ import annotations

from collections.abc import Sequence

from marco_model.labels import CLASSES

ORDER = ("Crystals", "Precipitate", "Clear", "Other")
"""The order of Table IV."""

ACCURACY = 0.945
IMAGES = 47_062

CONFUSION = {
    "Crystals": (0.910, 0.058, 0.017, 0.015),
    "Precipitate": (0.008, 0.961, 0.023, 0.007),
    "Clear": (0.002, 0.018, 0.979, 0.002),
    "Other": (0.048, 0.197, 0.059, 0.696),
}
"""True class to the shares predicted as each class of `ORDER`; rounded as printed, so rows add up to 0.999 to 1.001."""

AUC = {"Crystals": 0.988, "Precipitate": 0.989}

OPERATING = {"Crystals": ((0.987, 0.19), (0.94, 0.016)), "Precipitate": ((0.996, 0.25), (0.94, 0.034))}
"""(recall, share of false positives that it stays below) of each class."""


def applies(classes: Sequence[str]) -> bool:
    """Tells whether the paper's figures are of these classes."""
    return tuple(classes) == CLASSES


def order(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes in the order in which a table shows them: the paper's, of its four."""
    return ORDER if applies(classes) else tuple(classes)
