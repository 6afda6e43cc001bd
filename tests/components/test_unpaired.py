import numpy as np
import pytest
from scipy import stats

from components import paired


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Newcombe 1998, table II, method 10.
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((10, 10, 0, 10), (0.6075, 1.0000)),
        ((0, 10, 0, 10), (-0.2775, 0.2775)),
    ],
)
def test_newcombes_own_examples(table, expected):
    assert paired.unpaired_interval(*table, 0.95) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (3, 7), (95, 100), (100, 100)])
def test_wilsons_interval_is_scipys(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(0.9, method="wilson")
    assert paired.wilson(hits, count, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    drawn = zip(rng.binomial(120, 0.9, 3000), rng.binomial(60, 0.8, 3000), strict=True)
    intervals = [paired.unpaired_interval(int(one), 120, int(other), 60, 0.95) for one, other in drawn]
    assert 0.935 <= np.mean([low <= 0.1 <= high for low, high in intervals]) <= 0.975
