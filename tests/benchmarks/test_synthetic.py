import numpy as np
import pytest

from benchmarks import synthetic
from marco_data.synthetic import Settings
from marco_model.labels import CLASSES


def test_colour_that_gives_the_class_away_is_reported():
    rng = np.random.default_rng(0)
    shown = np.repeat(np.arange(4), 25)
    assert synthetic.accuracy_from_colour(rng.normal(size=(100, 6)), shown) < 0.45
    assert synthetic.accuracy_from_colour(rng.normal(size=(100, 6)) + 20 * np.eye(4, 6)[shown], shown) > 0.95


def test_colour_statistics_are_those_of_the_pixels():
    import cv2

    image = np.zeros((32, 32, 3), np.uint8)
    image[:16] = (10, 100, 200)
    encoded = cv2.imencode(".png", image)[1].tobytes()
    assert synthetic.colour_statistics(encoded) == pytest.approx([5, 50, 100, 5, 50, 100])


@pytest.mark.slow
def test_the_published_classifier_sees_what_was_drawn():
    pytest.importorskip("dls_marco_score_ispyb")
    drops, from_colour = synthetic.measure(40, Settings(seed=0))
    assert len(drops) == 40
    assert drops["agreed"].mean() >= 0.65, synthetic.describe(drops)
    by_class = drops.groupby("shown")["agreed"].mean()
    assert set(by_class.index) == set(CLASSES)
    assert by_class.min() >= 0.3, synthetic.describe(drops)
    assert from_colour <= 0.6
