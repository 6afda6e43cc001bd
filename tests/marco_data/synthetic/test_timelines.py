import csv
from collections import Counter

import numpy as np
import pytest

from marco_data.name_tables import imager_of
from marco_data.places import place_of
from marco_data.synthetic import KINDS, Settings, draw, plan, synthesize
from marco_data.synthetic.plan import CLEAR, COURSES, CRYSTALS, Timeline
from marco_data.synthetic.writer import manifest_of
from marco_model.errors import InputError
from marco_model.labels import CLASSES
from marco_scoring import plates

SETTINGS = Settings(seed=5, shorter_side=64, inspections=6)
LABELS = {kind.name: kind.label for kind in KINDS}


def _series(drops, settings=SETTINGS):
    count = settings.inspections
    return [[plan(settings, count * drop + time) for time in range(count)] for drop in range(drops)]


def _timeline(**changes):
    values = dict.fromkeys(("nucleation", "dissolving", "onset"), np.inf)
    values |= {"clear": "clear drop", "matter": "film", "crystal": "plates", "growth": 0.3, "spreading": 0.5}
    return Timeline(**values | {"course": COURSES[0], "unjudged": ("",) * 6} | changes)


def test_courses_are_drawn_in_proportion_and_of_kinds_that_exist():
    assert sum(course.share for course in COURSES) == pytest.approx(1)
    counts = Counter(series[0].timeline.course for series in _series(1000))
    assert {course: counts[course] / 1000 for course in COURSES} == pytest.approx(
        {course: course.share for course in COURSES}, abs=0.04
    )
    assert {LABELS[kind] for kind in CRYSTALS} == {"Crystals"}
    assert {LABELS[kind] for kind in CLEAR} == {"Clear"}
    assert {LABELS[kind] for course in COURSES for kind in course.matter} == {"Other", "Precipitate"}


def test_crystals_grow_from_their_nucleation_on_and_dissolve():
    timeline = _timeline(nucleation=1.8, dissolving=4.0)
    moments = [timeline.moment(inspection) for inspection in range(6)]
    assert [moment.size for moment in moments[:2]] == [0, 0]
    assert moments[2].size == pytest.approx(1 - np.exp(-0.2 / 0.3))
    assert moments[5].size == pytest.approx((1 - np.exp(-3.2 / 0.3)) * np.exp(-1 / 0.4))
    assert [moment.kind for moment in moments] == ["clear drop"] * 2 + ["plates"] * 3 + ["clear drop"]
    assert timeline.first_crystals == 2
    assert _timeline(nucleation=4.95).first_crystals is None


def test_precipitate_that_turns_into_crystals_is_used_up():
    course = next(course for course in COURSES if course.name == "precipitate turns crystal")
    timeline = _timeline(course=course, matter="heavy precipitate", nucleation=2.5, onset=-1.0)
    moments = [timeline.moment(inspection) for inspection in range(6)]
    assert [LABELS[moment.kind] for moment in moments] == ["Precipitate"] * 3 + ["Crystals"] * 3
    assert moments[2].amount == 1 and moments[5].amount == pytest.approx(0.3, abs=0.01)


def test_a_spoiled_picture_shows_nothing_that_can_be_judged():
    timeline = _timeline(nucleation=0.5, unjudged=("", "dark", "", "", "", ""))
    assert timeline.moment(1).kind == "dark" and timeline.first_crystals == 2


def test_names_tell_drop_and_time():
    series = _series(200)
    names = [image.filename for images in series for image in images]
    assert len(set(names)) == len(names)
    for images in series:
        read = [place_of(image.filename) for image in images]
        assert len({(place.plate, place.well, place.drop) for place in read}) == 1
        assert read[0].plate and plates.position(read[0].well)
        assert plates.time_points([("drop", place) for place in read])[1] == list(range(6))
        assert {imager_of(image.imager.institution, image.filename) for image in images} == {images[0].imager.name}
        assert len({image.split for image in images}) == 1
    wells = {(place_of(images[0].filename).plate, place_of(images[0].filename).well) for images in series}
    assert len(wells) == 200


def test_a_drop_stays_the_same_but_for_what_comes():
    """Change between inspections is small in a drop that stays clear, and large where crystals have come."""

    def change(series, first, second):
        before, after = (
            draw(series[time].index, settings).image.astype(float).mean(axis=2) for time in (first, second)
        )
        return np.abs((after - after.mean()) - (before - before.mean())).mean()

    settings = Settings(seed=5, shorter_side=120, inspections=6)
    still, come = [], []
    for series in _series(60, settings):
        timeline = series[0].timeline
        if any(timeline.unjudged):
            continue
        if timeline.course.name == "stays clear":
            still.append(change(series, 0, 5))
        elif timeline.course.name == "crystals" and 0 < timeline.nucleation < 3:
            come.append(change(series, 0, 5))
    assert min(len(still), len(come)) >= 4
    assert np.median(come) > np.median(still) + 1


def test_a_set_tells_when_crystals_came(tmp_path):
    synthesize(tmp_path / "drops", 50, SETTINGS, processes=1)
    with (tmp_path / "drops" / "drops.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["inspections"] for row in rows] == ["6"] * 8 + ["2"]
    for row, images in zip(rows, _series(9), strict=True):
        shown = [image.inspection + 1 for image in images if CLASSES[image.shown] == "Crystals"]
        shown = [inspection for inspection in shown if inspection <= int(row["inspections"])]
        assert row["first_crystals"] == (str(shown[0]) if shown else "")
        assert row["well"] == place_of(images[0].filename).well
    assert "first_crystals" in rows[0] and any(row["first_crystals"] for row in rows)


def test_sets_of_one_picture_each_are_described_as_before_there_were_others():
    assert "inspections" not in manifest_of(2, Settings())["settings"]
    assert manifest_of(2, SETTINGS)["settings"]["inspections"] == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inspections": 0}, "inspections is 0"),
        ({"inspections": 13}, "1 to 12"),
        ({"inspections": 6, "classes": {"Crystals": 2, "Clear": 1}}, "courses of drops decide"),
    ],
)
def test_bad_settings_are_reported_in_one_error(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)
