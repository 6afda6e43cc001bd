"""Plate, well and drop from an image's file name, and when it was taken, where the name's convention is known.

Conventions (docs/data.md): Formulatrix Rock Imager exports `<plate>_<well>_<profile>_<number>.jpg`, such as
`03c3_G6_ImagerDefaults_6.jpg`, whose number counts the inspections; HWMRI writes the plate's bar code `X` and nine
digits, the well of a 1,536-well plate in four, and the time to the minute: `X0000056450155200509052032.png`. Images
renamed by hand may carry a date behind the well: `03c3_G6-2_2026-03-02T1430_anything.jpg`.
"""

from __future__ import annotations

import datetime
import re
from typing import NamedTuple


class DropPlace(NamedTuple):
    """Where a drop is; an empty string stands for what the file name does not tell."""

    plate: str = ""
    well: str = ""
    drop: str = ""


class Taken(NamedTuple):
    """When an image was taken: what the file name tells of it, the rest being empty.

    `date`: ISO 8601 without a zone, `2005-09-05T20:32` or `2005-09-05`. `inspection`: the number of the plate's
    inspection, as written.
    """

    date: str = ""
    inspection: str = ""


_WELL = r"(?P<plate>[^_]+)_(?P<well>(?:[A-Z]|A[A-F])[0-9]{1,2})(?:-(?P<drop>[0-9]+))?"
_DATED = re.compile(
    _WELL + r"_(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})"
    r"(?:[T_-](?P<time>[0-9]{2}[-h:]?[0-9]{2})(?:[-m:]?[0-9]{2}s?)?(?=[_.]))?(?:_.*)?\.[^.]+",
    re.IGNORECASE,
)
_FORMULATRIX = re.compile(_WELL + r"_[^_]+_(?P<inspection>[0-9]+)\.[^.]+", re.IGNORECASE)
_HWMRI = re.compile(r"(?P<plate>X[0-9]{9})(?P<well>[0-9]{4})(?P<day>[0-9]{8})(?P<time>[0-9]{4})\.[^.]+", re.IGNORECASE)


def drop_place(filename: str) -> DropPlace:
    """Returns plate, well and drop of a base name; all empty if no convention fits."""
    told = _told(filename)
    return DropPlace(told.get("plate", ""), told.get("well", ""), told.get("drop", ""))


def taken(filename: str) -> Taken:
    """Returns when the image of this base name was taken; all empty if no convention tells."""
    told = _told(filename)
    return Taken(_date(told.get("day", ""), told.get("time", "")), told.get("inspection", ""))


def as_text(path: object) -> str:
    """Returns a path as text that any file can hold: a byte of a name that is not UTF-8 shows as `\\xf6`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _told(filename: str) -> dict[str, str]:
    """What the first convention that fits finds; a date that is none does not count."""
    dated = _DATED.fullmatch(filename)
    if dated and not _date(dated["day"], dated["time"] or ""):
        dated = None
    match = dated or _FORMULATRIX.fullmatch(filename) or _HWMRI.fullmatch(filename)
    return {name: value or "" for name, value in match.groupdict().items()} if match else {}


def _date(day: str, time: str) -> str:
    """Returns digits of a day and of an hour and minute, or none, as ISO 8601; empty where they are no date."""
    digits = re.sub(r"\D", "", day)
    try:
        if not time:
            return datetime.datetime.strptime(digits, "%Y%m%d").date().isoformat()
        moment = datetime.datetime.strptime(digits + re.sub(r"\D", "", time), "%Y%m%d%H%M")
    except ValueError:
        return ""
    return moment.isoformat(timespec="minutes")
