import hypothesis
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import strategies
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from marco_model.calibration import (
    ENOUGH_EXAMPLES,
    HIGHEST,
    LOWEST,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from marco_model.errors import InputError


def draw_logits(count, sharpness, seed=0, classes=4):
    """Logits of a classifier that is `sharpness` times too confident, and labels."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, (count, classes))
    labels = (rng.random(count)[:, None] > softmax(honest, axis=1).cumsum(1)).sum(1).clip(0, classes - 1)
    return honest * sharpness, labels


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_is_what_the_labels_were_drawn_by(sharpness):
    logits, labels = draw_logits(40_000, sharpness)
    assert fit_temperature(logits, labels) == pytest.approx(sharpness, rel=0.03)


def test_for_two_classes_it_is_the_closed_form():
    # A logit of 2 for the class that is right 3 times in 4: sigmoid(2 / T) = 3/4, so T = 2 / log 3.
    log_scores = np.tile([2.0, 0.0], (4, 1))
    assert fit_temperature(log_scores, np.array([0, 0, 0, 1])) == pytest.approx(2 / np.log(3), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_at_the_temperature_the_likelihoods_slope_is_zero(seed):
    # d loss / d(1/T) = mean(expected logit - the label's logit), by another solver than the one that fits.
    logits, labels = draw_logits(200, 1.7, seed)

    def slope(inverse):
        expected = (softmax(logits * inverse, axis=1) * logits).sum(1)
        return (expected - logits[np.arange(len(labels)), labels]).mean()

    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(1 / brentq(slope, 0.05, 20), rel=1e-5)
    losses = [
        log_loss(labels, softmax(logits / t, axis=1), labels=range(4))
        for t in (temperature * 0.98, temperature, temperature * 1.02)
    ]
    assert losses[1] == min(losses)


def test_scores_stand_for_their_logits_even_rounded_to_nothing():
    logits, labels = draw_logits(500, 2.0)
    assert fit_temperature(log_softmax(logits, axis=1), labels) == pytest.approx(fit_temperature(logits, labels))
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert LOWEST < fit_temperature(logarithms, np.array([0, 1, 1])) <= HIGHEST


def test_a_few_examples_stay_within_the_bounds():
    logits = np.eye(4) * 3
    assert LOWEST <= fit_temperature(logits, np.arange(4)) < 0.1  # The loss cannot fall any further.
    assert fit_temperature(logits, np.arange(4)[::-1]) == pytest.approx(HIGHEST, rel=1e-3)


@pytest.mark.parametrize("start", [0.5, 1.0, 2.0])
def test_few_examples_leave_the_temperature_of_the_start(start):
    logits, labels = draw_logits(ENOUGH_EXAMPLES - 1, 3.0)
    assert fit_temperature(logits, labels, start) == start


@pytest.mark.parametrize("start", [0.5, 1.0, 2.0])
def test_the_temperature_is_shrunk_towards_the_start(start):
    # The most probable log T if it is normal around log `start` with a deviation of 0.5, by SciPy on the joint density.
    logits, labels = draw_logits(150, 3.0)

    def improbability(log_temperature):
        likelihoods = softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels]
        return -np.log(likelihoods).sum() - norm.logpdf(log_temperature, np.log(start), 0.5)

    shrunk = fit_temperature(logits, labels, start)
    expected = minimize_scalar(improbability, bounds=(np.log(0.05), np.log(20)), method="bounded").x
    assert np.log(shrunk) == pytest.approx(expected, abs=1e-4)
    fitted = fit_temperature(logits, labels)
    assert min(start, fitted) < shrunk < max(start, fitted)
    # All are right, so that without a start only the rounding of the likelihood or the bound would stop it.
    certain = np.eye(4)[np.arange(200) % 4]
    assert fit_temperature(certain, np.arange(200) % 4) < 0.06
    assert fit_temperature(certain, np.arange(200) % 4, start) > 0.1


@hypothesis.given(
    arrays.arrays(np.float64, (5, 4), elements=strategies.floats(-30, 30)), strategies.floats(LOWEST, HIGHEST)
)
def test_calibrated_scores_are_the_softmax_of_the_divided_logits(logits, temperature):
    calibrated = calibrate(softmax(logits, axis=1), temperature)
    assert calibrated.dtype == np.float32
    np.testing.assert_allclose(calibrated, softmax(logits / temperature, axis=1), atol=1e-6)
    np.testing.assert_allclose(calibrated.sum(1), 1, atol=1e-6)


def test_a_temperature_of_one_changes_nothing_and_zeros_stay():
    scores = np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(calibrate(scores, 1.0), scores, atol=1e-7)
    assert calibrate(scores, 3.0)[0, 0] == 0


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("seed", range(3))
def test_the_curve_is_scikit_learns(bins, seed):
    logits, labels = draw_logits(300, 1.5, seed)
    probabilities = softmax(logits, axis=1)
    diagram = reliability(probabilities, labels, bins)
    right = (probabilities.argmax(1) == labels).astype(int)
    accuracy, confidence = calibration_curve(right, probabilities.max(1), n_bins=bins)
    np.testing.assert_allclose([part.accuracy for part in diagram], accuracy, atol=1e-12)
    np.testing.assert_allclose([part.confidence for part in diagram], confidence, atol=1e-12)
    assert sum(part.count for part in diagram) == 300
    assert all(part.count > 0 and part.low < part.confidence <= part.high for part in diagram)


def test_the_expected_error_by_hand():
    # Two bins: 0.6 and 0.8 are in (0.5, 1], right once of two: |0.5 - 0.7|; 0.5 is in (0, 0.5], right: |1 - 0.5|.
    probabilities = np.array([[0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    labels = np.array([0, 0, 0])
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx((2 * 0.2 + 1 * 0.5) / 3)
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0


def test_fitting_takes_the_error_out():
    logits, labels = draw_logits(20_000, 2.5)
    before = expected_calibration_error(softmax(logits, axis=1), labels)
    after = expected_calibration_error(calibrate(softmax(logits, axis=1), fit_temperature(logits, labels)), labels)
    assert before > 0.1
    assert after < 0.015


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.zeros((0, 4)), np.zeros(0, int)),
        (np.zeros((2, 4)), np.zeros(3, int)),
        (np.zeros(4), np.zeros(4, int)),
        (np.zeros((1, 4)), np.array([4])),
        (np.zeros((1, 4)), np.array([-1])),
        (np.full((1, 4), np.nan), np.array([0])),
    ],
)
def test_what_does_not_fit_is_refused(values, labels):
    for judge in (fit_temperature, expected_calibration_error, reliability):
        with pytest.raises(InputError, match="calibration got"):
            judge(values, labels)
