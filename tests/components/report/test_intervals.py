import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from components.report.curves import share, wilson


@given(st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_is_scipys(pair):
    found, count = pair
    expected = scipy.stats.binomtest(found, count).proportion_ci(0.95, "wilson")
    assert wilson(found, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_of_nothing_there_is_no_share():
    assert share(0, 0) == {"found": 0, "count": 0, "share": None, "low": None, "high": None}
