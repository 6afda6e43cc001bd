import datetime
from collections import Counter

from hypothesis import given, strategies as st

from marco_data.places import Place
from marco_scoring.plates import PAUSE, new_hits, time_points

moments = st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 4))
taken = st.one_of(
    st.just(Place()),
    st.builds(lambda number: Place(inspection=str(number)), st.integers(0, 12)),
    st.builds(lambda moment: Place(date=moment.isoformat(timespec="minutes")), moments),
    st.builds(lambda moment: Place(date=moment.date().isoformat()), moments),
)


def at(*dates):
    return [(drop, Place(date=date)) for drop, date in dates]


def test_one_go_through_a_plate_is_one_time_point_however_long_it_takes():
    points, index = time_points(
        at(
            ("A1", "2026-03-02T09:00"),
            ("A2", "2026-03-02T10:59"),
            ("A1", "2026-03-05T09:10"),
            ("A2", "2026-03-05T10:00"),
        )
    )
    assert index == [0, 0, 1, 1]
    assert [tuple(point) for point in points] == [("2 Mar 2026", "day 0"), ("5 Mar 2026", "day 3")]


def test_the_first_date_that_there_is_begins_a_time_point():
    """.NET writes it for a date that it does not know."""
    points, index = time_points(at(("A1", "0001-01-01T00:00"), ("A1", "9999-12-31T23:59")))
    assert index == [0, 1]
    assert [point.label for point in points] == ["1 Jan 1", "31 Dec 9999"]


def test_two_time_points_on_a_day_are_separated_by_a_repeated_drop_or_by_a_pause():
    points, index = time_points(at(("A1", "2026-03-02T09:00"), ("A1", "2026-03-02T10:00"), ("A2", "2026-03-02T18:00")))
    assert index == [0, 1, 2]
    assert [point.label for point in points] == ["2 Mar 2026 09:00", "2 Mar 2026 10:00", "2 Mar 2026 18:00"]
    assert {point.since for point in points} == {"day 0"}


def test_images_of_one_moment_share_a_time_point():
    _, index = time_points(at(("A1", "2026-03-02"), ("A1", "2026-03-02"), ("A2", "2026-03-02"), ("A1", "2026-03-03")))
    assert index == [0, 0, 0, 1]


def test_inspections_are_ordered_as_numbers_and_come_before_dates():
    dated = (("2026-03-02", ""), ("", "10"), ("", "9"), ("", ""))
    points, index = time_points([("A1", Place(date=date, inspection=number)) for date, number in dated])
    assert index == [3, 2, 1, 0]
    assert [point.label for point in points] == ["no date", "inspection 9", "inspection 10", "2 Mar 2026"]


@given(st.lists(st.tuples(st.sampled_from("abc"), taken), max_size=30))
def test_every_image_has_a_time_point_and_time_never_decreases(images):
    points, index = time_points(images)
    assert sorted(set(index)) == list(range(len(points)))
    dated = sorted((when.date, point) for (_, when), point in zip(images, index, strict=True) if when.date)
    assert [point for _, point in dated] == sorted(point for _, point in dated)
    for (drop, when), point in zip(images, index, strict=True):
        for (other, then), other_point in zip(images, index, strict=True):
            if point == other_point:
                # A drop has a single time at each time point, and no time point contains a pause.
                assert drop != other or when == then
                assert when.inspection == then.inspection
    assert time_points(images[::-1])[1] == index[::-1]


def test_a_pause_starts_a_time_point():
    start = datetime.datetime(2026, 3, 2, 9)
    for pause, expected in ((PAUSE, [0, 1]), (PAUSE - datetime.timedelta(minutes=1), [0, 0])):
        dates = [moment.isoformat(timespec="minutes") for moment in (start, start + pause)]
        assert time_points(at(("A1", dates[0]), ("A2", dates[1])))[1] == expected


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=20), st.integers(0, 3))
def test_new_are_the_hits_of_the_last_time_point_whose_drop_had_none(hits, last):
    found = new_hits(hits, last)
    earlier = Counter(drop for drop, when, hit in hits if hit and when < last)
    assert found == [last > 0 and hit and when == last and not earlier[drop] for drop, when, hit in hits]
    if last == 0:
        assert not any(found)
