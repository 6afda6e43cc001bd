import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marco_data.image_files import Acquisition, DropPlace, acquisition, drop_place


@pytest.mark.parametrize(
    ("name", "place", "when"),
    [
        ("03c3_G6_ImagerDefaults_6.jpg", ("03c3", "G6", ""), ("", "6")),
        ("03c3_AF48-2_ImagerDefaults_12.JPG", ("03c3", "AF48", "2"), ("", "12")),
        ("X0000056450155200509052032.png", ("X000005645", "0155", ""), ("2005-09-05T20:32", "")),
        ("X0000056450155200513052032.png", ("X000005645", "0155", ""), ("", "")),
        ("03c3_g6_2026-03-02.jpg", ("03c3", "g6", ""), ("2026-03-02", "")),
        ("03c3_G6-2_2026-03-02T1430.tif", ("03c3", "G6", "2"), ("2026-03-02T14:30", "")),
        ("03c3_G6-2_20260302-14-30-59_VIS 2.tif", ("03c3", "G6", "2"), ("2026-03-02T14:30", "")),
        ("03c3_G6_20260302_1430.jpg", ("03c3", "G6", ""), ("2026-03-02T14:30", "")),
        ("03c3_G6_20260302_7.jpg", ("03c3", "G6", ""), ("2026-03-02", "")),
        ("03c3_G6_20261302_7.jpg", ("03c3", "G6", ""), ("", "7")),
        ("03c3_G6_2026-02-30.jpg", ("", "", ""), ("", "")),
        ("C000012-A01a-201203.jpg", ("", "", ""), ("", "")),
        ("crystals_10.jpeg", ("", "", ""), ("", "")),
        ("", ("", "", ""), ("", "")),
    ],
)
def test_what_a_name_tells(name, place, when):
    assert drop_place(name) == DropPlace(*place)
    assert acquisition(name) == Acquisition(*when)


@given(
    st.datetimes(datetime.datetime(1000, 1, 1)),
    st.sampled_from(
        ["{d:%Y-%m-%d}T{d:%H%M}", "{d:%Y%m%d}_{d:%H%M}", "{d:%Y%m%d}-{d:%Hh%Mm%Ss}", "{d:%Y-%m-%d}_{d:%H:%M}"]
    ),
    st.sampled_from(["", "_profile", "_profile_3", "_a-b_c d"]),
)
def test_every_date_comes_back(moment, form, rest):
    # strftime pads no years on Linux; from 1000 on there is nothing to pad.
    written = form.format(d=moment)
    expected = Acquisition(moment.replace(second=0, microsecond=0).isoformat(timespec="minutes"))
    assert acquisition(f"03c3_H12-1_{written}{rest}.jpg") == expected
    assert acquisition(f"X0000056450155{moment:%Y%m%d%H%M}.png") == expected


@given(st.text(max_size=60))
def test_any_name_is_read_without_an_error(name):
    for filename in (name, f"a_A1_{name}.jpg", f"a_A1_20260302{name}.jpg"):
        drop_place(filename)
        when = acquisition(filename)
        assert not when.date or datetime.datetime.fromisoformat(when.date)
