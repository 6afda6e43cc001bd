import numpy as np
import pytest
import scipy.optimize
import scipy.special
import sklearn.calibration
import sklearn.metrics

from components.report.curves import BINS, halves, reliability


def expected_error(probabilities, labels):
    """Returns the expected calibration error, from scikit-learn's curve weighted by a histogram."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    accuracy, mean = sklearn.calibration.calibration_curve(right, confidence, n_bins=BINS)
    counts = np.histogram(confidence, np.linspace(0, 1, BINS + 1))[0]
    return float((np.abs(accuracy - mean) * counts[counts > 0]).sum() / len(labels)), accuracy, mean, counts


def at_temperature(scores, temperature):
    return scipy.special.softmax(np.log(scores.astype(float)) / temperature, axis=1)


def best_temperature(scores, labels):
    def loss(temperature):
        return sklearn.metrics.log_loss(labels, at_temperature(scores, temperature), labels=[0, 1, 2, 3])

    return scipy.optimize.minimize_scalar(loss, bounds=(0.1, 5), method="bounded", options={"xatol": 1e-9}).x


@pytest.mark.parametrize("temperature", [1.0, 0.42])
def test_every_number_matches_sklearn(predictions, temperature):
    table = predictions(400, seed=3)
    scores, labels = np.stack(list(table["scores"])), table["label"].to_numpy(int)
    calibration = reliability(scores, labels, temperature)
    probabilities = at_temperature(scores, temperature)
    for name, values in (("scores", scores), ("calibrated", probabilities)):
        error, accuracy, confidence, counts = expected_error(values, labels)
        assert calibration["ece"][name] == pytest.approx(error, abs=1e-6)
        assert calibration["confidence"][name] == pytest.approx(values.max(axis=1).mean(), abs=1e-6)
        assert [point["count"] for point in calibration["curves"][name]] == counts[counts > 0].tolist()
        assert [point["accuracy"] for point in calibration["curves"][name]] == pytest.approx(accuracy, abs=1e-6)
        assert [point["confidence"] for point in calibration["curves"][name]] == pytest.approx(confidence, abs=1e-6)
    assert calibration["accuracy"] == sklearn.metrics.accuracy_score(labels, scores.argmax(axis=1))
    assert calibration["temperature"] == temperature


def test_no_image_is_judged_by_a_temperature_that_saw_it(predictions):
    table = predictions(400, seed=4)
    scores, labels = np.stack(list(table["scores"])), table["label"].to_numpy(int)
    calibration = reliability(scores, labels, 1.0)
    first = halves(len(labels))
    assert first.sum() == 200
    temperatures = [best_temperature(scores[~part], labels[~part]) for part in (first, ~first)]
    assert calibration["cross_fitted"] == pytest.approx(temperatures, rel=1e-4)
    probabilities = np.empty_like(scores)
    for part, temperature in zip((first, ~first), calibration["cross_fitted"], strict=True):
        probabilities[part] = at_temperature(scores[part], temperature)
    assert calibration["ece"]["cross_fitted"] == pytest.approx(expected_error(probabilities, labels)[0], abs=1e-6)
    assert calibration["ece"]["cross_fitted"] < calibration["ece"]["scores"]


def test_a_handful_of_images_is_not_halved(predictions):
    table = predictions(5)
    calibration = reliability(np.stack(list(table["scores"])), table["label"].to_numpy(int), 1.0)
    assert calibration["cross_fitted"] is calibration["ece"]["cross_fitted"] is None
