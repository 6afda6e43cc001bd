import numpy as np
import pytest
import scipy.stats

from components.monitoring.two_sample import (
    class_test,
    energy,
    holm,
    kolmogorov_smirnov,
    permutation_tests,
    signed_weights,
)


def join(new, old):
    return np.concatenate([new, old]), np.arange(len(new) + len(old)) < len(new)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("digits", [8, 0])
def test_the_distance_of_one_stratum_matches_scipy(rng, digits):
    new, old = rng.normal(0.3, 1, 80).round(digits), rng.normal(0, 1, 150).round(digits)
    values, is_new = join(new, old)
    weights = signed_weights(is_new, np.zeros(230, int))
    got = kolmogorov_smirnov(values)(weights[None])[0]
    assert got == pytest.approx(scipy.stats.ks_2samp(new, old).statistic, abs=1e-6)


def test_the_p_value_of_one_stratum_matches_scipy(rng):
    new, old = rng.normal(0.28, 1, 90), rng.normal(0, 1, 200)
    values, is_new = join(new, old)
    strata = np.zeros(290, int)
    (got,) = permutation_tests([kolmogorov_smirnov(values)], signed_weights(is_new, strata), strata, 4000, rng)
    assert got.p_value == pytest.approx(scipy.stats.ks_2samp(new, old).pvalue, rel=0.35)
    assert 0.001 < got.p_value < 0.1


def test_the_energy_distance_in_one_dimension_matches_scipy(rng):
    new, old = rng.normal(0.5, 1, 60), rng.normal(0, 1, 90)
    values, is_new = join(new, old)
    measure, _ = energy(values[:, None])
    got = measure(signed_weights(is_new, np.zeros(150, int))[None])[0]
    assert got == pytest.approx(scipy.stats.energy_distance(new, old) ** 2, rel=1e-3)


def test_weights_have_the_samples_mixture(rng):
    is_new = np.arange(50) < 20
    strata = np.concatenate([np.repeat([0, 1], [15, 5]), np.repeat([0, 1], [10, 20])])
    weights = signed_weights(is_new, strata)
    for stratum, share in ((0, 0.75), (1, 0.25)):
        inside = strata == stratum
        assert weights[inside & is_new].sum() == pytest.approx(share)
        assert weights[inside & ~is_new].sum() == pytest.approx(-share)


def test_a_stratum_without_reference_is_refused():
    with pytest.raises(ValueError, match="stratum 1 has 1 new images and 0"):
        signed_weights(np.array([True, True, False]), np.array([0, 1, 0]))


def test_another_mixture_of_the_same_classes_is_no_change(rng):
    # Two classes that are far apart, 20 : 80 in the reference and 80 : 20 in the sample.
    classes, is_new = join(np.repeat([0, 1], [160, 40]), np.repeat([0, 1], [80, 320]))
    values = classes * 5 + rng.normal(0, 1, len(classes))
    measures = [kolmogorov_smirnov(values), energy(values[:, None])[0]]
    blind = permutation_tests(measures, signed_weights(is_new, classes * 0), classes * 0, 999, rng)
    seeing = permutation_tests(measures, signed_weights(is_new, classes), classes, 999, rng)
    assert all(result.p_value == 1 / 1000 and result.distance > 0.3 for result in blind)
    assert all(result.p_value > 0.05 for result in seeing)


def test_p_values_are_uniform_where_nothing_changed():
    p_values = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        strata, is_new = join(rng.integers(0, 3, 40), rng.integers(0, 3, 60))
        values = rng.normal(strata, 1).round(1)
        weights = signed_weights(is_new, strata)
        (result,) = permutation_tests([kolmogorov_smirnov(values)], weights, strata, 199, rng)
        p_values.append(result.p_value)
    for level in (0.05, 0.2, 0.5):
        share = np.mean(np.array(p_values) <= level)
        assert share <= level + 3 * np.sqrt(level * (1 - level) / 300)
        assert share >= level - 3 * np.sqrt(level * (1 - level) / 300) - 0.05  # Ties make the test a little cautious.


def test_the_class_test_matches_scipy(rng):
    new, old = np.array([30, 50, 40, 60]), np.array([100, 100, 100, 100])
    distance, p_value = class_test(new, old, 20000, rng)
    expected = scipy.stats.chi2_contingency(np.stack([new, old]), correction=False)
    assert p_value == pytest.approx(expected[1], rel=0.2)
    assert distance == pytest.approx(scipy.spatial.distance.cityblock(new / 180, old / 400) / 2)


def test_a_class_without_images_does_not_matter(rng):
    assert class_test(np.array([5, 0, 5]), np.array([6, 0, 4]), 999, rng)[1] > 0.5


def test_holm_multiplies_the_sorted_p_values_by_the_number_that_remains():
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
