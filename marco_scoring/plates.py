"""Plates: crystal classes, formats and wells, time points of images, new crystals, and when crystals came to drops."""

import datetime
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marco_data.places import ROWS, Place, PlaceOf, is_visible
from marco_model import pixels, time_course
from marco_model.errors import InputError


def class_index(classes: Sequence[str], name: str) -> int:
    """Returns the index of the class `name`, in whatever case; raises InputError if there is no such class."""
    folded = [known.casefold() for known in classes]
    if name.casefold() not in folded:
        raise InputError(f"the model has no class {name!r}; give one of {', '.join(classes)}")
    return folded.index(name.casefold())


def crystal_classes(classes: Sequence[str], chosen: Sequence[str] = ()) -> list[int]:
    """Returns the indices of the classes named in `chosen`, or else of all that have `crystal` in their names.

    Case does not matter. Raises InputError for a name that the model does not have, or if no class matches.
    """
    if chosen:
        return sorted({class_index(classes, name) for name in chosen})
    indices = [index for index, name in enumerate(classes) if "crystal" in name.casefold()]
    if not indices:
        raise InputError(
            f"none of the model's classes is named after crystals; choose with --crystal-class which of "
            f"{', '.join(classes)} to rank by"
        )
    return indices


def crystal_score(scores: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Adds up the scores of the classes that mean crystals: [..., classes] to [...]."""
    return scores[..., list(indices)].sum(axis=-1)


class Format(NamedTuple):
    """A plate's rows and columns."""

    rows: int
    columns: int


FORMATS = (Format(4, 6), Format(6, 8), Format(8, 12), Format(16, 24), Format(32, 48))
"""Plates of 24, 48, 96, 384 and 1,536 wells, as ANSI SLAS 4 spaces them."""
USUAL = Format(8, 12)
"""Assumed if few wells were seen."""


class Position(NamedTuple):
    """A well's row and column, both counted from 0."""

    row: int
    column: int


def position(well: str) -> Position | None:
    """Returns where a well such as `G6`, `g06` or `AF48` lies; None for a name that is no well of a 1,536-well plate.

    Four digits are HWMRI's number of a well of 1,536, from `0001`, counted here along the rows.
    """
    rows, columns = FORMATS[-1]
    if re.fullmatch(r"[0-9]{4}", well):
        number = int(well) - 1
        return Position(*divmod(number, columns)) if 0 <= number < rows * columns else None
    match = re.fullmatch(r"([A-Z]|A[A-F])([0-9]{1,2})", well.upper())
    if not match or not 1 <= int(match[2]) <= columns:
        return None
    return Position(ROWS.index(match[1]), int(match[2]) - 1)


def row_names(plate: Format) -> list[str]:
    """Returns `A`, `B` … `Z`, `AA` …, one per row."""
    return list(ROWS[: plate.rows])


def well_name(well: Position) -> str:
    """Returns a position as `G6`."""
    return f"{ROWS[well.row]}{well.column + 1}"


def plate_format(seen: Collection[Position]) -> Format:
    """Returns the plate that wells come from: the smallest that has them all and of which at least half was seen.

    If less was seen, it is the smallest of 96 wells or more that has them all: four rows of a 96-well plate would
    otherwise pass for a complete smaller plate.
    """
    wells = set(seen)
    rows = max((well.row for well in wells), default=0) + 1
    columns = max((well.column for well in wells), default=0) + 1
    fitting = [plate for plate in FORMATS if rows <= plate.rows and columns <= plate.columns]
    for plate in fitting:
        if plate.rows * plate.columns >= USUAL.rows * USUAL.columns or 2 * len(wells) >= plate.rows * plate.columns:
            return plate
    raise ValueError(f"row {rows} or column {columns} is on no plate of {FORMATS[-1]}")


PAUSE = datetime.timedelta(hours=3)
"""An imager needs less than this for a plate of 1,536 wells, and returns to it later than this."""


class TimePoint(NamedTuple):
    """One inspection of a plate: its label, and how long after the first dated one (`day 3`), or empty."""

    label: str
    since: str


def time_points(images: Sequence[tuple[Hashable, Place]]) -> tuple[list[TimePoint], list[int]]:
    """Groups the images of one plate, each (drop, its place), into time points, in the order of time.

    Returns the time points and, for each image, the index of its own. Images without date or inspection number come
    first, then those with only a number, one time point per number, then the dated ones. Among these a new time point
    begins after a pause of `PAUSE` or more, and when a drop is repeated at a later time. So each time point has a drop
    once, or several times with equal times (other light, another focus).
    """
    undated = sorted({_number(when) for _, when in images if not when.date})
    points = [TimePoint("no date" if number < 0 else f"inspection {number}", "") for number in undated]
    drops_at: dict[str, set[Hashable]] = {}
    for drop, when in images:
        if when.date:
            drops_at.setdefault(when.date, set()).add(drop)
    starts: list[str] = []
    point_of: dict[str, int] = {}
    seen: set[Hashable] = set()
    before = datetime.datetime.min
    for date in sorted(drops_at):
        # If the date has no time of day and the last time point began on that day, no pause is known.
        same_day = "T" not in date and starts and starts[-1][:10] == date
        moment = datetime.datetime.fromisoformat(date)
        if not starts or seen & drops_at[date] or (moment - before >= PAUSE and not same_day):
            starts.append(date)
            seen = set()
        seen |= drops_at[date]
        before = moment
        point_of[date] = len(undated) + len(starts) - 1
    index = [point_of[when.date] if when.date else undated.index(_number(when)) for _, when in images]
    return points + _label(starts), index


def drop_of(place: Place) -> Hashable | None:
    """Returns what identifies the drop that an image shows, by its plate, well and number; None without a well."""
    well = position(place.well)
    return (place.identity, well, place.drop) if well else None


Drop = list[list[int]]
"""The images of one drop: the numbers of those of each time point, in the order of time."""


def drops_over_time(images: Sequence[Place]) -> list[Drop]:
    """Returns the drops that images show, by their places.

    Images without a well show no drop that is known again, and those in other than visible light are left out.
    """
    by_plate: dict[str, list[int]] = {}
    for number, place in enumerate(images):
        if position(place.well) and is_visible(place.light):
            by_plate.setdefault(place.identity, []).append(number)
    found = []
    for members in by_plate.values():
        named = [(drop_of(images[number]), images[number]) for number in members]
        by_drop: dict[Hashable, dict[int, list[int]]] = {}
        for number, (drop, _), time in zip(members, named, time_points(named)[1], strict=True):
            by_drop.setdefault(drop, {}).setdefault(time, []).append(number)
        found += [[times[time] for time in sorted(times)] for times in by_drop.values()]
    return found


UNDATED = "undated"


class ScoredPicture(NamedTuple):
    """A scored picture: scores, float32 [classes], what the time course takes, float32 [values], and its flag."""

    path: Path
    place: Place
    scores: np.ndarray
    views: np.ndarray
    flag: str = ""


class CourseAnswer(NamedTuple):
    """What a drop's pictures say by the time of one of them, the cells of `score_table.COURSE_COLUMNS`.

    by_now: the probability that crystals have come. since: the inspection, or the date, of the first picture with which
    it was an alarm; empty before.
    """

    by_now: float
    since: str


def course_answers(course: time_course.TimeCourse, pictures: Sequence[ScoredPicture]) -> dict[Path, CourseAnswer]:
    """Returns the answers of pictures, by path.

    Pictures of one inspection have one answer, and none depends on a later inspection. One without a well, in other
    than visible light, or that cannot be judged, has none.
    """
    found: dict[Path, CourseAnswer] = {}
    judged = [picture for picture in pictures if picture.flag not in pixels.UNUSABLE]
    for drop in drops_over_time([picture.place for picture in judged]):
        inspections = [[judged[number] for number in numbers] for numbers in drop]
        views = np.stack([np.mean([picture.views for picture in those], axis=0) for those in inspections])
        scores = np.stack([np.mean([picture.scores for picture in those], axis=0) for those in inspections])
        by_now = course.probabilities(time_course.Series(views, scores))
        alarm = course.alarm(by_now)
        for time, those in enumerate(inspections):
            since = ""
            if alarm is not None and time >= alarm:
                first = inspections[alarm][0].place
                since = first.inspection or first.date or UNDATED
            found |= {picture.path: CourseAnswer(float(by_now[time]), since) for picture in those}
    return found


def to_score_again(files: Mapping[Path, Place], scored: Collection[Path], answered: Collection[Path]) -> list[Path]:
    """Returns which of the `scored` files must be scored again: pictures of drops that have pictures without answer.

    `files`: all, with their places. `scored`: by an earlier run. `answered`: those of them that have an answer.
    """
    paths, again = list(files), []
    for drop in drops_over_time(list(files.values())):
        members = [paths[number] for numbers in drop for number in numbers]
        if not all(path in answered for path in members):
            again += [path for path in members if path in scored]
    return again


def new_hits(hits: Sequence[tuple[Hashable, int, bool]], last: int) -> list[bool]:
    """Returns, for each (drop, time point, crystals seen), whether the drop shows crystals at `last` first.

    A drop without an earlier image counts only if `last` is not the first time point.
    """
    before = {drop for drop, when, hit in hits if hit and when < last}
    return [last > 0 and hit and when == last and drop not in before for drop, when, hit in hits]


def _number(when: Place) -> int:
    return int(when.inspection) if when.inspection else -1


def _label(starts: Sequence[str]) -> list[TimePoint]:
    """Names each time point by its day, with the time of day where a day has several."""
    moments = [datetime.datetime.fromisoformat(start) for start in starts]
    days = [moment.date() for moment in moments]
    points = []
    for moment, start in zip(moments, starts, strict=True):
        label = f"{moment.day} {moment:%b} {moment.year}"
        if days.count(moment.date()) > 1 and "T" in start:
            label += f" {moment:%H:%M}"
        points.append(TimePoint(label, f"day {(moment.date() - days[0]).days}"))
    return points


IMAGES, SINCE = "images", "crystals_since"
"""The columns with the number of a drop's images, and since when it has crystals."""


def best_rows(
    rows: Iterable[dict[str, Any]], crystal_columns: Sequence[str], place_of: PlaceOf
) -> Iterator[dict[str, Any]]:
    """Yields one row of a table of scores per drop, in the order of their first images, with the number of its images.

    It is the row with the highest sum over `crystal_columns`, of all slices, lights and inspections; of equal ones the
    later. An image that cannot be judged counts only if all of its drop are such. An image without a well is a drop of
    its own. Where rows tell since when a drop has crystals, the row tells it by all images.
    """
    drops: dict[Hashable, tuple[tuple[bool, float], dict[str, Any], int]] = {}
    since: dict[Hashable, dict[str, Any]] = {}
    for cells in rows:
        rank = (cells.get("flag") not in pixels.UNUSABLE, sum(float(cells[name]) for name in crystal_columns))
        place = place_of(str(cells["path"]))
        drop = drop_of(place) or cells["path"]
        if not since.get(drop, {}).get(SINCE) and SINCE in cells:
            since[drop] = {SINCE: cells[SINCE]}
        best, shown, count = drops.get(drop, (rank, cells, 0))
        drops[drop] = (rank, cells, count + 1) if rank >= best else (best, shown, count + 1)
    for drop, (_, cells, count) in drops.items():
        yield {**cells, **since.get(drop, {}), IMAGES: count}
