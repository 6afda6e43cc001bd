"""Which imager took an image: as told, by its record, or by institution and file name."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence

from marco_data.institutions import UNKNOWN, imager_of

ANY = "*"


@dataclasses.dataclass(frozen=True)
class Naming:
    """The rules, the first that fits counting.

    Attributes:
        told: pairs of a pattern (`*`, `?`, `[…]`; matches the path below the folder given) and the imager's name.
        institution: whose file names tell the imager (docs/data.md), for files; records name their own.
    """

    told: tuple[tuple[str, str], ...] = ()
    institution: str = ""

    def of_file(self, name: str) -> str:
        """Returns the imager of the file `name`, a path below the folder given, or `unknown`."""
        return self._told(name) or imager_name(self.institution, self._by_name(name, self.institution))

    def of_record(self, name: str, institution: str, imager: str) -> str:
        """Returns the imager of a record whose image was called `name`; `imager` may be empty."""
        return self._told(name) or imager_name(institution, imager or self._by_name(name, institution))

    def _told(self, name: str) -> str:
        return next((imager for pattern, imager in self.told if fnmatch.fnmatchcase(name, pattern)), "")

    def _by_name(self, name: str, institution: str) -> str:
        return imager_of(institution, name.rsplit("/", 1)[-1])


def imager_name(institution: str, imager: str) -> str:
    """Returns `CSIRO / Rigaku Minstrel`: cameras of one make at two places are two imagers."""
    if imager in ("", UNKNOWN):
        return institution if institution and not institution.startswith("source ") else UNKNOWN
    return f"{institution} / {imager}" if institution else imager


def parse_told(rules: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Reads `NAME`, for every image, and `PATTERN=NAME`."""
    pairs = (rule.partition("=") if "=" in rule else (ANY, "=", rule) for rule in rules)
    return tuple((pattern.strip(), name.strip()) for pattern, _, name in pairs)
