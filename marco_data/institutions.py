"""The institutions of MARCO's Table I, in the order of our `sources.csv`, and which imager took which image.

No feature of a MARCO record names the imager: it follows from the institution and, where that has several imagers, from
the file name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

INSTITUTIONS: tuple[str, ...] = ("Bristol-Myers Squibb", "CSIRO", "HWMRI", "GlaxoSmithKline", "Merck")

FORMULATRIX = "Formulatrix Rock Imager"
MINSTREL = "Rigaku Minstrel"
HWMRI_HOME = "HWMRI home system"
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class ImagerRule:
    """Images of `institution` whose file name matches the regular expression `pattern` whole come from `imager`."""

    institution: str
    imager: str
    pattern: str = ".*"


IMAGER_RULES: tuple[ImagerRule, ...] = (
    ImagerRule("Bristol-Myers Squibb", FORMULATRIX),
    ImagerRule("CSIRO", FORMULATRIX, r".*_ImagerDefaults_.*"),
    ImagerRule("CSIRO", MINSTREL),
    ImagerRule("HWMRI", HWMRI_HOME),
    ImagerRule("GlaxoSmithKline", FORMULATRIX),
    ImagerRule("Merck", FORMULATRIX),
)


def imager_of(institution: str, filename: str, rules: Sequence[ImagerRule] = IMAGER_RULES) -> str:
    """Returns the imager of the first rule that fits, or `unknown`."""
    for rule in rules:
        if rule.institution == institution and re.fullmatch(rule.pattern, filename):
            return rule.imager
    return UNKNOWN
