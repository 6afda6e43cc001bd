"""When crystals came to the drops of a table of scores, by the pictures of each drop together.

`answers` takes scored pictures and gives each what the model's time course says of its drop by then.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from marco_data.places import Place
from marco_model import time_course
from marco_scoring import plates

UNDATED = "undated"


class Picture(NamedTuple):
    """A scored picture: scores, float32 [classes], what the time course takes, float32 [values], and its flag."""

    path: Path
    place: Place
    scores: np.ndarray
    views: np.ndarray
    flag: str = ""


class Answer(NamedTuple):
    """What a drop's pictures say by the time of one of them, the cells of `score_table.COURSE_COLUMNS`.

    by_now: the probability that crystals have come. since: the inspection, or the date, of the first picture with which
    it was an alarm; empty before.
    """

    by_now: float
    since: str


def answers(course: time_course.TimeCourse, pictures: Sequence[Picture]) -> dict[Path, Answer]:
    """Returns the answers of pictures, by path.

    Pictures of one inspection have one answer, and none depends on a later inspection. One without a well, in other
    than visible light, or with a flag, has none.
    """
    found: dict[Path, Answer] = {}
    judged = [picture for picture in pictures if not picture.flag]
    for drop in plates.drops_over_time([picture.place for picture in judged]):
        inspections = [[judged[number] for number in numbers] for numbers in drop]
        views = np.stack([np.mean([picture.views for picture in those], axis=0) for those in inspections])
        scores = np.stack([np.mean([picture.scores for picture in those], axis=0) for those in inspections])
        by_now = course.probabilities(time_course.Series(views, scores))
        alarm = course.alarm(by_now)
        for time, those in enumerate(inspections):
            since = "" if alarm is None or time < alarm else _when(inspections[alarm][0].place)
            found |= {picture.path: Answer(float(by_now[time]), since) for picture in those}
    return found


def _when(place: Place) -> str:
    return place.inspection or place.date or UNDATED


def to_score_again(files: Mapping[Path, Place], scored: Collection[Path], answered: Collection[Path]) -> list[Path]:
    """Returns which of the `scored` files must be scored again: pictures of drops that have pictures without answer.

    `files`: all, with their places. `scored`: by an earlier run. `answered`: those of them that have an answer.
    """
    paths, again = list(files), []
    for drop in plates.drops_over_time(list(files.values())):
        members = [paths[number] for numbers in drop for number in numbers]
        if not all(path in answered for path in members):
            again += [path for path in members if path in scored]
    return again
