"""Which images of a plate were taken in one go, and in which drops crystals are new."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from marco_data.file_names import Taken

PAUSE = datetime.timedelta(hours=3)
"""An imager is through with a plate of 1,536 wells sooner than this, and comes back to it later."""


class TimePoint(NamedTuple):
    """One go through a plate: what to call it, and how long after the first dated one (`day 3`), or empty."""

    label: str
    since: str


def time_points(images: Sequence[tuple[Hashable, Taken]]) -> tuple[list[TimePoint], list[int]]:
    """Puts the images of one plate, each (drop, when taken), into time points, in the order of time.

    Returns the time points and, for each image, the index of its own. Images without date or inspection number come
    first, then those with a number alone, a time point a number; then the dated ones. Of these a new time point begins
    with a pause of `PAUSE` or more, and where a drop comes again with a later time. So each time point has a drop
    once, or more than once with equal times (other light, another focus).
    """
    undated = sorted({_number(when) for _, when in images if not when.date})
    points = [TimePoint("no date" if number < 0 else f"inspection {number}", "") for number in undated]
    drops_at: dict[str, set[Hashable]] = defaultdict(set)
    for drop, when in images:
        if when.date:
            drops_at[when.date].add(drop)
    starts: list[str] = []
    point_of: dict[str, int] = {}
    seen: set[Hashable] = set()
    before = datetime.datetime.min
    for date in sorted(drops_at):
        paused = _moment(date) - before >= PAUSE and not _same_day_alone(starts, date)
        if paused or seen & drops_at[date]:
            starts.append(date)
            seen = set()
        seen |= drops_at[date]
        before = _moment(date)
        point_of[date] = len(undated) + len(starts) - 1
    index = [point_of[when.date] if when.date else undated.index(_number(when)) for _, when in images]
    return points + _labelled(starts), index


def new_hits(hits: Sequence[tuple[Hashable, int, bool]], last: int) -> list[bool]:
    """Returns, for each (drop, time point, crystals seen), whether the drop shows them at `last` for the first time.

    A drop that has no earlier image counts only where `last` is not the first time point.
    """
    before = {drop for drop, when, hit in hits if hit and when < last}
    return [last > 0 and hit and when == last and drop not in before for drop, when, hit in hits]


def _number(when: Taken) -> int:
    return int(when.inspection) if when.inspection else -1


def _moment(date: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(date)


def _same_day_alone(starts: Sequence[str], date: str) -> bool:
    """Whether `date` is a mere day and the last time point began on it: then nothing says that there was a pause."""
    return bool(starts) and "T" not in date and starts[-1][:10] == date


def _labelled(starts: Sequence[str]) -> list[TimePoint]:
    """Names each time point by its day, with the time of day where a day has several."""
    moments = [_moment(start) for start in starts]
    days = [moment.date() for moment in moments]
    points = []
    for moment, start in zip(moments, starts, strict=True):
        label = f"{moment.day} {moment:%b} {moment.year}"
        if days.count(moment.date()) > 1 and "T" in start:
            label += f" {moment:%H:%M}"
        points.append(TimePoint(label, f"day {(moment.date() - days[0]).days}"))
    return points
