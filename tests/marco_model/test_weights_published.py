"""The published weights, in the whole network."""

import numpy as np
import pytest

from marco_model.errors import InputError
from marco_model.inception_v3 import inception_v3
from marco_model.labels import CLASSES
from marco_model.load import open_classifier
from marco_model.network import Network, build
from marco_model.weights import Kept, initialise, load_published_weights

LOGITS, AUXILIARY_LOGITS = "Logits-Conv2d_1c_1x1", "AuxLogits-Conv2d_2b_1x1"


def values(model):
    return {variable.path: np.array(variable) for variable in model.variables}


def test_the_published_weights_start_a_training_with_other_classes():
    pytest.importorskip("dls_marco_score_ispyb")
    network = Network(initial="released", auxiliary=True)
    published = build(network, num_classes=4, seed=0)
    load_published_weights(published)
    same, other = build(network, num_classes=4, seed=1), build(network, num_classes=3, seed=1)
    assert initialise(same, network, CLASSES) == Kept(CLASSES, (), True)
    assert initialise(other, network, ["Precipitate", "Skin", "Clear"]) == Kept(
        ("Precipitate", "Clear"), ("Skin",), True
    )
    expected = values(published)
    assert all(np.array_equal(value, expected[path]) for path, value in values(same).items())
    for path, value in values(other).items():
        if path.startswith((LOGITS, AUXILIARY_LOGITS)):
            np.testing.assert_array_equal(value[..., [0, 2]], expected[path][..., [3, 0]])
        else:
            np.testing.assert_array_equal(value, expected[path])


def test_every_score_of_the_real_images_is_the_published_one(released_directory, encoded, published_scores):
    classifier = open_classifier(released_directory)
    assert classifier.classes == CLASSES
    np.testing.assert_allclose(classifier.score(encoded), published_scores, atol=1e-4)


def test_other_shapes_than_the_published_are_refused():
    for model in (inception_v3(variant="paper"), inception_v3(variant="released", num_classes=5)):
        before = np.array(model.get_layer("Conv2d_0a_3x3").kernel)
        with pytest.raises(InputError, match="published checkpoint"):
            load_published_weights(model)
        np.testing.assert_array_equal(model.get_layer("Conv2d_0a_3x3").kernel, before)
