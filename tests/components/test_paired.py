"""The statistics against scipy, closed forms, a bootstrap and the coverage of simulated intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from components import paired
from components.paired import Pairs

COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300)).map(
    lambda told: Pairs(told[0], told[1], told[0] + told[1] + told[2])
)


def test_pairs_are_counted():
    candidate = np.array([True, True, False, False, True])
    champion = np.array([True, False, True, True, False])
    assert paired.pairs(candidate, champion) == Pairs(2, 2, 5)
    with pytest.raises(ValueError, match="same images"):
        paired.pairs(candidate, champion[:-1])


@given(COUNTS)
def test_mcnemar_is_the_binomial_tail_in_closed_form(found):
    discordant = found.gained + found.lost
    tail = sum(math.comb(discordant, wins) for wins in range(found.gained, discordant + 1)) / 2**discordant
    assert paired.p_better(found) == pytest.approx(tail, rel=1e-9)


@given(COUNTS, st.sampled_from([0.025, 0.0125, 0.1]))
def test_the_smallest_difference_that_counts_is_where_the_test_begins_to_reject(found, level):
    discordant = found.gained + found.lost
    rejected = (
        [
            wins
            for wins in range(discordant + 1)
            if stats.binomtest(wins, discordant, 0.5, alternative="greater").pvalue <= level
        ]
        if discordant
        else []
    )
    limit = paired.smallest_better(found, level)
    if rejected:
        assert limit == pytest.approx((2 * min(rejected) - discordant) / found.count)
        assert (paired.p_better(found) <= level) == (found.difference >= limit - 1e-12)
    else:
        assert limit is None


@given(COUNTS)
def test_the_interval_is_walds_of_a_table_with_half_an_image_more_in_each_cell(found):
    total = found.count + 2
    gained, lost = (found.gained + 0.5) / total, (found.lost + 0.5) / total
    error = math.sqrt((gained + lost - (gained - lost) ** 2) / total)
    low, high, told = paired.paired_interval(found, 0.95)
    assert told == pytest.approx(error)
    assert low == pytest.approx(max(-1, gained - lost - 1.959964 * error), abs=1e-6)
    assert high == pytest.approx(min(1, gained - lost + 1.959964 * error), abs=1e-6)
    assert error > 0 and low < high


def test_without_discordant_images_nothing_is_certain():
    assert paired.p_better(Pairs(0, 0, 50)) == 1
    low, high, error = paired.paired_interval(Pairs(0, 0, 50), 0.95)
    assert -0.06 < low < -0.02 and low == -high and error > 0


def test_the_interval_of_many_images_is_a_bootstraps():
    rng = np.random.default_rng(0)
    change = rng.choice([1, -1, 0], 3000, p=[0.06, 0.03, 0.91])
    found = Pairs(int((change == 1).sum()), int((change == -1).sum()), len(change))
    resampled = rng.choice(change, (4000, len(change))).mean(axis=1)
    low, high, error = paired.paired_interval(found, 0.95)
    assert error == pytest.approx(resampled.std(), rel=0.05)
    assert [low, high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.001)


@pytest.mark.parametrize(
    ("count", "gained", "lost"),
    [(40, 0.1, 0.1), (40, 0.02, 0.15), (150, 0.03, 0.03), (2000, 0.05, 0.03), (60, 0.01, 0.01)],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(count, gained, lost):
    rng = np.random.default_rng(1)
    tables = rng.multinomial(count, [gained, lost, 1 - gained - lost], 3000)
    intervals = [paired.paired_interval(Pairs(int(one[0]), int(one[1]), count), 0.95) for one in tables]
    held = np.mean([low <= gained - lost <= high for low, high, _ in intervals])
    assert held >= 0.93
    assert count < 1000 or held <= 0.965


def test_equal_models_are_seldom_called_better():
    rng = np.random.default_rng(2)
    tables = rng.multinomial(400, [0.05, 0.05, 0.9], 4000)
    called = [paired.p_better(Pairs(int(one[0]), int(one[1]), 400)) <= 0.025 for one in tables]
    assert np.mean(called) <= 0.025 + 3 * math.sqrt(0.025 / 4000)
