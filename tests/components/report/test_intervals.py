from components.report.curves import share
from components.significance import share_interval


def test_a_share_has_its_interval_of_95_percent():
    low, high = share_interval(7, 9, 0.95)
    assert share(7, 9) == {"found": 7, "count": 9, "share": 7 / 9, "low": low, "high": high}


def test_a_share_of_nothing_is_undefined():
    assert share(0, 0) == {"found": 0, "count": 0, "share": None, "low": None, "high": None}
