import io

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from marco_model import pixels
from marco_model.errors import InputError
from marco_model.load import open_classifier
from marco_scoring.serving.classify import Refused, classify
from tests.fakes.classifier import Scripted as ScriptedClassifier


@pytest.fixture(scope="module")
def classifier(small_model):
    return open_classifier(small_model[0])


def test_scores_and_probabilities_are_the_networks(classifier, encoded, small_model):
    outcomes = [classify(classifier, image) for image in encoded]
    np.testing.assert_allclose([outcome.scores for outcome in outcomes], small_model[1], atol=1e-3)
    expected = softmax(np.log(small_model[1]) / 1.5, axis=1)
    np.testing.assert_allclose([outcome.probabilities for outcome in outcomes], expected, atol=1e-3)


def test_an_image_that_does_not_decode_is_refused_with_its_reason(classifier, encoded):
    outcome = classify(classifier, encoded[0][:30_000])
    assert isinstance(outcome, Refused)
    assert outcome.reason.startswith("does not decode: ")


def test_what_the_model_refuses_is_refused_with_its_reason(encoded):
    class Picky(ScriptedClassifier):
        def score(self, images):
            raise InputError("too picky")

    assert classify(Picky(), encoded[0]) == Refused("too picky")


def test_turned_and_deep_images_are_scored_as_marco_predict_scores_them():
    class Brightness(ScriptedClassifier):
        name, classes, temperature = "brightness", ("first",), 1.0

        def score(self, images):
            return np.array([[1 + pixels.decode(image)[0, 0].mean()] for image in images], np.float32)

    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 6
    exif = Image.Exif()
    exif[274] = 3
    deep, turned, uncertain = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(values).save(deep, "PNG")
    Image.fromarray((values >> 4).astype(np.uint8)).save(turned, "PNG", exif=exif)
    Image.fromarray(values // 3).save(uncertain, "PNG")
    images = [image.getvalue() for image in (deep, turned, uncertain)]
    outcomes = [classify(Brightness(), image) for image in images]
    assert "give the camera's bits" in outcomes[2].reason
    assert np.array_equal([outcome.scores[0] for outcome in outcomes[:2]], [1, 1 + (599 * 6 >> 4)])
    assert classify(Brightness(), images[2], bits=12).scores[0] == 1
