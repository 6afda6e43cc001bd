import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from marco_model.errors import InputError
from marco_model.labels import CLASSES
from marco_model.load import open_classifier
from marco_model.model_directory import published_directory


def test_the_published_classifiers_sorted_scores_come_in_the_order_of_the_classes(encoded, published_scores):
    classifier = open_classifier(published_directory())
    assert (classifier.name, classifier.classes) == ("marco-2018", CLASSES)
    np.testing.assert_allclose(classifier.score(encoded), published_scores, atol=1e-5)
    assert classifier.score([]).shape == (0, 4)


def test_the_published_classifier_has_features_and_no_temperature(
    published_classifier, encoded, published_scores, released_model
):
    classifier = published_classifier
    assert classifier.temperature == 1.0
    np.testing.assert_allclose(classifier.probabilities(encoded[:2]), published_scores[:2], atol=1e-5)
    result = classifier.embed(encoded[:2])
    kernel, bias = released_model.get_layer("Logits-Conv2d_1c_1x1").get_weights()
    np.testing.assert_allclose(softmax(result @ kernel[0, 0] + bias, axis=1), published_scores[:2], atol=1e-5)


def test_probabilities_are_the_models_own(released_directory, released_classifier, encoded, published_scores):
    classifier = released_classifier
    squares = published_scores**2
    assert classifier.temperature == 0.5
    np.testing.assert_allclose(classifier.probabilities(encoded), squares / squares.sum(1, keepdims=True), atol=1e-5)
    served = tf.saved_model.load(str(released_directory)).signatures["serving_default"](tf.constant(encoded))
    np.testing.assert_allclose(served["probabilities"], classifier.probabilities(encoded), atol=1e-5)


def test_a_model_without_temperature_and_onnx_model_scores(tmp_path):
    plain = tf.Module()
    plain.scores = tf.function(
        lambda image_bytes: {
            "scores": tf.tile([[0.9, 0.1]], [tf.shape(image_bytes)[0], 1]),
            "classes": tf.tile([["a", "b"]], [tf.shape(image_bytes)[0], 1]),
        },
        input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    tf.saved_model.save(plain, str(tmp_path), signatures=plain.scores)
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "marco.json").write_text('{"name": "plain", "classes": ["a", "b"], "input_size": 8}')
    classifier = open_classifier(tmp_path)
    assert classifier.temperature == 1.0
    image = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    np.testing.assert_allclose(classifier.score([image] * 2), [[0.9, 0.1]] * 2)
    np.testing.assert_allclose(classifier.probabilities([image] * 2), [[0.9, 0.1]] * 2, rtol=1e-6)
    for function in ("logits", "embeddings"):
        with pytest.raises(InputError, match="was exported without gradients; export it again"):
            getattr(classifier, function)
    with pytest.raises(InputError, match=r"has no assets\.extra/model\.onnx, which averages; export it again"):
        open_classifier(tmp_path, average=2)


def test_averaged_scores_are_the_mean_over_tensorflows_flips_and_turns(
    released_directory, released_classifier, encoded
):
    images = tf.constant(released_classifier.images(encoded[:1]))
    turned = [tf.image.rot90(each, turns) for each in (images, tf.image.flip_left_right(images)) for turns in range(4)]
    expected = np.mean([tf.nn.softmax(released_classifier.logits(view)) for view in turned], axis=0)
    averaging = open_classifier(released_directory, average=8)
    assert averaging.name == "released, mean of 8 views"
    np.testing.assert_allclose(averaging.score(encoded[:1]), expected, atol=1e-5)
    half = open_classifier(released_directory, average=2)
    expected = np.mean([tf.nn.softmax(released_classifier.logits(turned[number])) for number in (0, 4)], axis=0)
    np.testing.assert_allclose(half.score(encoded[:1]), expected[:1], atol=1e-5)
    np.testing.assert_allclose(
        half.embed(encoded[:1]),
        np.mean([released_classifier.embeddings(turned[number][:1]) for number in (0, 4)], axis=0),
        atol=1e-4,
    )
    with pytest.raises(InputError, match="mean over 3 views; give 1, 2, 4 or 8"):
        open_classifier(released_directory, average=3)


def test_a_folder_of_versions_gives_the_newest(released_directory, tmp_path):
    for version in ("2", "10"):
        (tmp_path / version).symlink_to(released_directory)
    (tmp_path / "notes").mkdir()
    assert open_classifier(tmp_path).metadata["input_size"] == 599


@pytest.mark.parametrize("damage", [lambda image: image[:30_000], lambda image: b"not an image"])
def test_an_image_that_does_not_decode_is_an_input_error_in_one_line(released_classifier, encoded, damage):
    with pytest.raises(InputError, match="does not decode: ") as error:
        released_classifier.score([encoded[0], damage(encoded[1])])
    assert "\n" not in str(error.value)
    assert "node" not in str(error.value)


def test_a_folder_without_a_classifier_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        open_classifier(tmp_path / "nowhere")
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([])])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures=module.double)
    with pytest.raises(InputError, match="image_bytes"):
        open_classifier(tmp_path / "other")


def test_scoring_keeps_nothing_in_the_users_home(real_images, tmp_path):
    """ONNX Runtime 1.29 and later keep a device's id and events there to send, but not in tests and on CI.

    Their variables are not handed on.
    """
    program = (
        "import sys, marco_model\n"
        "classifier = marco_model.open_published_classifier()\n"
        "print(classifier.score([open(sys.argv[1], 'rb').read()]).shape)"
    )
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-c", program, str(real_images["clear_220.jpeg"])]
    done = subprocess.run(command, env={"HOME": str(home), "PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 4)", done.stderr
    assert list(home.iterdir()) == []
