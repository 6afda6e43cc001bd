import numpy as np
import pytest
import tensorflow as tf

from marco_model.errors import InputError
from marco_model.labels import CLASSES
from marco_model.load import load
from marco_model.released import published_directory


def test_the_published_classifiers_sorted_scores_come_in_the_order_of_the_classes(encoded, published_scores):
    classifier = load(published_directory())
    assert (classifier.name, classifier.classes) == ("marco-2018", CLASSES)
    np.testing.assert_allclose(classifier.score(encoded), published_scores, atol=1e-5)
    assert classifier.score([]).shape == (0, 4)


def test_a_folder_of_versions_gives_the_newest(released_directory, tmp_path):
    for version in ("2", "10"):
        (tmp_path / version).symlink_to(released_directory)
    (tmp_path / "notes").mkdir()
    assert load(tmp_path).metadata["input_size"] == 599


@pytest.mark.parametrize("damage", [lambda image: image[:30_000], lambda image: b"not an image"])
def test_an_image_that_does_not_decode_is_an_input_error_in_one_line(released_directory, encoded, damage):
    with pytest.raises(InputError, match="does not decode: ") as error:
        load(released_directory).score([encoded[0], damage(encoded[1])])
    assert "\n" not in str(error.value)
    assert "node" not in str(error.value)


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        load(tmp_path / "nowhere")
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([])])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures=module.double)
    with pytest.raises(InputError, match="image_bytes"):
        load(tmp_path / "other")
