"""Plate, well and drop from an image's file name, where its convention is known.

Conventions (docs/data.md): Formulatrix Rock Imager exports `<plate>_<well>_<profile>_<number>.jpg`, such as
`03c3_G6_ImagerDefaults_6.jpg`; HWMRI writes the plate's bar code `X` and nine digits, the well of a 1,536-well plate in
four, and the time to the minute: `X0000056450155200509052032.png`.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class DropPlace(NamedTuple):
    """Where a drop is; an empty string stands for what the file name does not tell."""

    plate: str = ""
    well: str = ""
    drop: str = ""


_CONVENTIONS = (
    re.compile(r"(?P<plate>[^_]+)_(?P<well>[A-P][0-9]{1,2})(?:-(?P<drop>[0-9]+))?_[^_]+_[0-9]+\.[^.]+", re.IGNORECASE),
    re.compile(r"(?P<plate>X[0-9]{9})(?P<well>[0-9]{4})[0-9]{12}\.[^.]+", re.IGNORECASE),
)


def drop_place(filename: str) -> DropPlace:
    """Returns plate, well and drop of a base name; all empty if no convention fits."""
    for convention in _CONVENTIONS:
        match = convention.fullmatch(filename)
        if match:
            return DropPlace(**{name: value or "" for name, value in match.groupdict().items()})
    return DropPlace()
