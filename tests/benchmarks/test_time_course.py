from pathlib import Path

import numpy as np
import pytest

from benchmarks import time_course
from marco_data.places import Place
from marco_scoring.plates import ScoredPicture


def drop(scores, shown, come=None):
    pictures = [ScoredPicture(Path(str(number)), Place(), np.zeros(4), np.zeros(2)) for number in range(len(scores))]
    shown, scores = np.array(shown, bool), np.array(scores)
    return time_course.Drop(pictures, scores, scores > 0.5, shown, shown if come is None else np.array(come, bool))


DROPS = [
    drop([0.1, 0.2, 0.9, 0.9], [0, 0, 1, 1]),  # in time
    drop([0.1, 0.2, 0.3, 0.9], [0, 0, 1, 1]),  # one later
    drop([0.9, 0.2, 0.3, 0.9], [0, 0, 1, 1]),  # early, by two
    drop([0.1, 0.9, 0.3, 0.9], [0, 0, 1, 1]),  # early, by one: within one, too
    drop([0.1, 0.9, 0.3, 0.9], [0, 0, 1, 1], [0, 1, 1, 1]),  # not early, since crystals are there
    drop([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]),  # never
    drop([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0]),  # rightly never
    drop([0.1, 0.7, 0.3, 0.4], [0, 0, 0, 0]),  # early, without crystals
]


def test_drops_are_counted_as_the_docstring_says():
    def alarm(drop):
        return time_course.first_true(drop.hits)

    assert time_course.judge(DROPS, alarm) == (5, 3, 4, 6)


def test_a_part_of_a_drop_has_its_own_first_picture_with_crystals():
    part = DROPS[0].part(np.array([1, 3]))
    assert (part.first, part.scores.tolist(), [picture.path.name for picture in part.pictures]) == (
        1,
        [0.2, 0.9],
        ["1", "3"],
    )
    assert DROPS[0].part(np.array([1])).first is None


def test_the_limit_of_scores_leaves_few_drops_with_an_early_alarm():
    # Of eight drops the highest score before crystals, 0.9, is the limit.
    limit = time_course.limit_of(DROPS)
    assert limit == np.nextafter(0.9, 2)
    many = [drop([score], [0]) for score in np.linspace(0, 0.9, 199)]
    assert sum(other.scores[0] >= time_course.limit_of(many) for other in many) == 1


@pytest.mark.parametrize(("count", "text"), [(95, "95.0% (88.8% to 97.8%)"), (100, "100.0% (96.3% to 100.0%)")])
def test_shares_have_wilsons_interval(count, text):
    assert time_course.share(count, 100).strip() == text
