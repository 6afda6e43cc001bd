import io
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from marco_model import pixels
from marco_model.errors import InputError
from marco_model.load import open_classifier
from marco_scoring.serving.classify import Refused, Scored, classify, warm_up


@pytest.fixture(scope="module")
def classifier(small_model):
    return open_classifier(small_model[0])


def test_scores_and_probabilities_are_the_networks(classifier, encoded, small_model):
    outcomes = classify(classifier, encoded)
    np.testing.assert_allclose([outcome.scores for outcome in outcomes], small_model[1], atol=1e-3)
    expected = softmax(np.log(small_model[1]) / 1.5, axis=1)
    np.testing.assert_allclose([outcome.probabilities for outcome in outcomes], expected, atol=1e-3)


@pytest.mark.parametrize("bad", [(0,), (2, 3), (0, 1, 2, 3, 4, 5)])
def test_an_image_that_does_not_decode_does_not_affect_the_others(classifier, encoded, small_model, bad):
    images = [image[:30_000] if index in bad else image for index, image in enumerate(encoded)]
    outcomes = classify(classifier, images)
    assert [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Refused)] == list(bad)
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Refused):
            assert outcome.reason.startswith("does not decode: ")
        else:
            np.testing.assert_allclose(outcome.scores, small_model[1][index], atol=1e-3)


class Picky:
    """A classifier that refuses some images though they decode; each score is the image's length."""

    name = "picky"
    temperature = 1.0
    metadata: ClassVar = {"name": "picky"}

    def __init__(self, refused):
        self.refused = refused

    def score(self, images):
        if any(image in self.refused for image in images):
            raise InputError("too picky")
        return np.float32([[1 / len(image), 1 - 1 / len(image)] for image in images])


def test_an_image_that_decodes_and_is_refused_does_not_affect_the_others(encoded):
    outcomes = classify(Picky([encoded[1]]), encoded[:3])
    assert outcomes[1] == Refused("too picky")
    for index in (0, 2):
        assert isinstance(outcomes[index], Scored)
        assert outcomes[index].scores[0] == pytest.approx(1 / len(encoded[index]))


def test_what_does_not_decode_says_so_of_the_published_classifier_too(encoded):
    class Published(Picky):
        metadata: ClassVar = {}

    cut = encoded[1][:30_000]
    outcomes = classify(Published([cut]), [encoded[0], cut, encoded[2]])
    assert [type(outcome) for outcome in outcomes] == [Scored, Refused, Scored]
    assert outcomes[1].reason.startswith("does not decode: ")
    assert [type(outcome) for outcome in classify(Published([cut]), [cut])] == [Refused]
    assert classify(Published([encoded[0]]), encoded[:2])[0] == Refused("too picky")


def test_warming_up_scores_one_and_a_whole_batch():
    class Counting(Picky):
        sizes = ()

        def score(self, images):
            self.sizes += (len(images),)
            return super().score(images)

    counting = Counting([])
    warm_up(counting, 8)
    assert counting.sizes == (1, 8)


def test_turned_and_deep_images_are_scored_as_marco_predict_scores_them():
    class Brightness:
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
    outcomes = classify(Brightness(), images)
    assert "give the camera's bits" in outcomes[2].reason
    assert np.array_equal([outcome.scores[0] for outcome in outcomes[:2]], [1, 1 + (599 * 6 >> 4)])
    assert classify(Brightness(), [images[2], b""], bits=12)[0].scores[0] == 1
