"""The statistics against closed forms, published examples, a bootstrap and the coverage of simulated intervals."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from components import significance
from components.significance import Pairs

COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300)).map(
    lambda cells: Pairs(cells[0], cells[1], sum(cells))
)


def test_pairs_are_counted():
    candidate = np.array([True, True, False, False, True])
    champion = np.array([True, False, True, True, False])
    assert significance.pairs(candidate, champion) == Pairs(2, 2, 5)
    with pytest.raises(ValueError, match="same images"):
        significance.pairs(candidate, champion[:-1])


@given(COUNTS)
def test_mcnemar_is_the_binomial_tail_in_closed_form(counts):
    discordant = counts.gained + counts.lost
    tail = sum(math.comb(discordant, wins) for wins in range(counts.gained, discordant + 1)) / 2**discordant
    assert significance.p_better(counts) == pytest.approx(tail, rel=1e-9)


PLATES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 20)), min_size=1, max_size=8)


def on_plates(cells):
    """Returns the pairs of plates with so many gains, losses and other images each."""
    candidate, champion, plates = [], [], []
    for plate, (gained, lost, others) in enumerate(cells):
        candidate += [True] * gained + [False] * lost + [True] * others
        champion += [False] * gained + [True] * lost + [True] * others
        plates += [plate] * (gained + lost + others)
    return significance.pairs(np.array(candidate, bool), np.array(champion, bool), np.array(plates, int))


@given(PLATES)
def test_with_plates_it_is_the_share_of_sign_flips_that_gain_as_much(cells):
    counts = on_plates(cells)
    if not counts.plates:  # No two images share one.
        return
    differences = [gained - lost for gained, lost, _ in cells]
    flips = [np.dot(signs, differences) for signs in itertools.product([-1, 1], repeat=len(cells))]
    share = np.mean([flip >= sum(differences) for flip in flips])
    assert significance.p_better(counts) == pytest.approx(share)
    assert significance.p_different(counts) == pytest.approx(
        min(1.0, 2 * min(share, np.mean([flip <= sum(differences) for flip in flips])))
    )
    limit = significance.smallest_better(counts, 0.1)
    if any(differences):
        assert (significance.p_better(counts) <= 0.1) == (limit is not None and counts.difference >= limit - 1e-12)


@given(PLATES)
def test_images_that_share_no_plate_are_judged_by_mcnemar(cells):
    counts = on_plates([(gained, lost, others) for gained, lost, others in cells])
    apart = significance.pairs(np.ones(3, bool), np.array([True, False, True]), np.arange(3))
    assert apart == Pairs(1, 0, 3)
    alone = Pairs(counts.gained, counts.lost, counts.count, tuple([(1, 1)] * counts.gained + [(-1, 1)] * counts.lost))
    plain = Pairs(counts.gained, counts.lost, counts.count)
    assert significance.p_better(alone) == pytest.approx(significance.p_better(plain))
    assert significance.smallest_better(alone, 0.05) == significance.smallest_better(plain, 0.05)


def test_the_interval_of_plates_contains_no_difference_as_often_as_it_claims():
    rng = np.random.default_rng(0)
    contained = 0
    for _ in range(400):
        effects = rng.normal(0, 0.03, 30).clip(-0.06, 0.06)
        draws = rng.random((30, 96))
        gained, lost = draws < (0.06 + effects[:, None]) / 2, draws > 1 - (0.06 - effects[:, None]) / 2
        counts = significance.pairs((~lost).ravel(), (~gained).ravel(), np.repeat(np.arange(30), 96))
        low, high, _ = significance.paired_interval(counts, 0.95)
        contained += low <= 0 <= high
    assert contained >= 0.92 * 400


@given(COUNTS, st.sampled_from([0.025, 0.0125, 0.1]))
def test_the_smallest_difference_that_counts_is_where_the_test_begins_to_reject(counts, level):
    discordant = counts.gained + counts.lost
    rejected = (
        [
            wins
            for wins in range(discordant + 1)
            if stats.binomtest(wins, discordant, 0.5, alternative="greater").pvalue <= level
        ]
        if discordant
        else []
    )
    limit = significance.smallest_better(counts, level)
    if rejected:
        assert limit == pytest.approx((2 * min(rejected) - discordant) / counts.count)
        assert (significance.p_better(counts) <= level) == (counts.difference >= limit - 1e-12)
    else:
        assert limit is None


@given(COUNTS)
def test_the_interval_is_walds_of_a_table_with_half_an_image_more_in_each_cell(counts):
    total = counts.count + 2
    gained, lost = (counts.gained + 0.5) / total, (counts.lost + 0.5) / total
    error = math.sqrt((gained + lost - (gained - lost) ** 2) / total)
    low, high, standard_error = significance.paired_interval(counts, 0.95)
    assert standard_error == pytest.approx(error)
    assert low == pytest.approx(max(-1, gained - lost - 1.959964 * error), abs=1e-6)
    assert high == pytest.approx(min(1, gained - lost + 1.959964 * error), abs=1e-6)
    assert error > 0 and low < high


def test_without_discordant_images_nothing_is_certain():
    assert significance.p_better(Pairs(0, 0, 50)) == 1
    low, high, error = significance.paired_interval(Pairs(0, 0, 50), 0.95)
    assert -0.06 < low < -0.02 and low == -high and error > 0


def test_the_interval_of_many_images_matches_a_bootstrap():
    rng = np.random.default_rng(0)
    change = rng.choice([1, -1, 0], 3000, p=[0.06, 0.03, 0.91])
    counts = Pairs(int((change == 1).sum()), int((change == -1).sum()), len(change))
    resampled = rng.choice(change, (4000, len(change))).mean(axis=1)
    low, high, error = significance.paired_interval(counts, 0.95)
    assert error == pytest.approx(resampled.std(), rel=0.05)
    assert [low, high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.001)


@pytest.mark.parametrize(
    ("count", "gained", "lost"),
    [(40, 0.1, 0.1), (40, 0.02, 0.15), (150, 0.03, 0.03), (2000, 0.05, 0.03), (60, 0.01, 0.01)],
)
def test_the_interval_contains_the_truth_as_often_as_it_claims(count, gained, lost):
    rng = np.random.default_rng(1)
    tables = rng.multinomial(count, [gained, lost, 1 - gained - lost], 3000)
    intervals = [significance.paired_interval(Pairs(int(cells[0]), int(cells[1]), count), 0.95) for cells in tables]
    coverage = np.mean([low <= gained - lost <= high for low, high, _ in intervals])
    assert coverage >= 0.93
    assert count < 1000 or coverage <= 0.965


def test_equal_models_are_seldom_called_better():
    rng = np.random.default_rng(2)
    tables = rng.multinomial(400, [0.05, 0.05, 0.9], 4000)
    called = [significance.p_better(Pairs(int(cells[0]), int(cells[1]), 400)) <= 0.025 for cells in tables]
    assert np.mean(called) <= 0.025 + 3 * math.sqrt(0.025 / 4000)


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
    assert significance.unpaired_interval(*table, 0.95) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@given(counts=st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_of_a_share_is_wilsons_in_closed_form(confidence, counts):
    hits, count = counts
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (hits + z * z / 2) / (count + z * z)
    reach = z / (count + z * z) * math.sqrt(hits * (count - hits) / count + z * z / 4)
    expected = (max(0, middle - reach), min(1, middle + reach))
    assert significance.share_interval(hits, count, confidence) == pytest.approx(expected, abs=1e-9)


@pytest.mark.long
def test_the_unpaired_interval_contains_the_truth_as_often_as_it_claims():
    rng = np.random.default_rng(0)
    drawn = zip(rng.binomial(120, 0.9, 3000), rng.binomial(60, 0.8, 3000), strict=True)
    intervals = [significance.unpaired_interval(int(hits), 120, int(other), 60, 0.95) for hits, other in drawn]
    assert 0.935 <= np.mean([low <= 0.1 <= high for low, high in intervals]) <= 0.975
