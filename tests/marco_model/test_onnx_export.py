import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from marco_data.synthetic import Settings, draw
from marco_model import (
    classifier,
    layers,
    load,
    model_directory,
    network as networks,
    onnx_export,
    onnx_network,
    preprocessing,
    saved_model,
)
from marco_model.errors import InputError
from tests import short_network


@pytest.fixture(scope="module")
def drops():
    return [draw(index, Settings(shorter_side=160)).jpeg() for index in range(6)]


def small(output=None):
    images = keras.Input((16, 16, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3, activation="relu")(images))
    return keras.Model(images, keras.layers.Dense(3)(features) if output is None else output(images, features))


@pytest.mark.parametrize("shrunk", [None, pytest.param(90, marks=pytest.mark.long)])
def test_an_exported_model_scores_as_its_saved_model_does(drops, tmp_path, shrunk):
    network = networks.build(networks.Network(input_size=151, depth_multiplier=0.1), num_classes=4, seed=0)
    preprocess = (lambda image: preprocessing.shrink(image, shrunk, 95)) if shrunk else None
    metadata = {"name": "m"} | ({"shrink": {"shorter_side": shrunk, "quality": 95}} if shrunk else {})
    classes = ["a", "b", "c", "d"]
    classifier.export(
        network, tmp_path / "m", classes=classes, input_size=151, preprocess=preprocess, metadata=metadata
    )
    assert (tmp_path / "m" / onnx_network.MODEL).is_file()
    loaded, graph = load.open_classifier(tmp_path / "m"), saved_model.SavedModel(tmp_path / "m", classes)
    for count in (0, 1, 6):
        scores = loaded.score(drops[:count])
        assert (scores.shape, scores.dtype) == ((count, 4), np.float32)
        if count:
            np.testing.assert_allclose(scores, graph.score(drops[:count]), rtol=0, atol=1e-4)
        embeddings = loaded.embed(drops[:count])
        np.testing.assert_allclose(
            embeddings, graph.embed(drops[:count]), rtol=1e-3, atol=1e-3 * np.abs(embeddings).max(initial=0)
        )
    assert loaded.images([]).shape == (0, 151, 151, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=[pytest.mark.long] * name.startswith("nasnet")) for name in networks.ARCHITECTURES],
)
def test_every_architecture_is_converted(architecture):
    with short_network.cut_applications():
        description = networks.Network(architecture=architecture, input_size=160)
        network = networks.build(description, num_classes=4, seed=0)
    both = classifier.with_features(layers.fold(classifier.logits_only(network)))
    images = np.random.default_rng(1).uniform(-1, 1, (2, 160, 160, 3)).astype(np.float32)
    expected = both([images], training=False)
    session = onnx_network.session(onnx_export.convert(both), 2)
    scores, embeddings = session.run(["scores", "embeddings"], {"images": images.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(scores, tf.nn.softmax(expected["logits"]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(embeddings, expected["embeddings"], rtol=1e-3, atol=1e-4 * np.abs(embeddings).max())


def test_layers_of_other_networks_are_converted():
    def output(images, features):
        x = keras.layers.Rescaling(0.5, 0.1)(images)
        x = keras.layers.SeparableConv2D(6, 3, strides=2, padding="same", activation="sigmoid")(x)
        x = keras.layers.DepthwiseConv2D(2, padding="same", depth_multiplier=2)(x)
        x = keras.layers.ReLU(max_value=0.5)(keras.layers.BatchNormalization()(x))
        x = keras.layers.Conv2D(4, 3, padding="same", dilation_rate=2, groups=2, activation="tanh")(x)
        x = keras.layers.Cropping2D(((1, 0), (0, 2)))(keras.layers.ZeroPadding2D(((0, 1), (2, 0)))(x))
        x = keras.layers.AveragePooling2D(3, 2, padding="same")(keras.layers.MaxPooling2D(2, 1, padding="same")(x))
        x = keras.layers.Flatten()(keras.layers.Reshape((4, 2, 8))(x))
        x = keras.layers.Dense(4, use_bias=False)(keras.layers.Dropout(0.5)(x))
        return keras.layers.Add()([keras.layers.Dense(4)(features), keras.layers.Activation("softmax")(x)])

    onnx_export.convert(classifier.with_features(small(output)))  # It compares the scores itself.


def test_a_layer_that_is_not_known_leaves_scoring_to_tensorflow(tmp_path, caplog, encoded):
    def output(images, features):
        return keras.layers.Dense(3, activation="gelu")(features)

    metadata = {"name": "m"}
    classifier.export(small(output), tmp_path / "m", classes=["a", "b", "c"], input_size=16, metadata=metadata)
    assert "only be scored with TensorFlow" in caplog.text
    assert not (tmp_path / "m" / onnx_network.MODEL).exists()
    assert load.open_classifier(tmp_path / "m").score(encoded[:1]).shape == (1, 3)


def test_a_wrong_conversion_is_refused(monkeypatch):
    wrong = {**onnx_export._ACTIVATIONS, "relu": "Sigmoid"}
    monkeypatch.setattr(onnx_export, "_ACTIVATIONS", wrong)
    with pytest.raises(InputError, match=r"scores noise .* and Keras .*; please report it"):
        onnx_export.convert(classifier.with_features(small()))


def test_a_damaged_model_names_its_file(tmp_path, encoded):
    metadata = {"name": "m"}
    classifier.export(small(), tmp_path / "m", classes=["a", "b", "c"], input_size=16, metadata=metadata)
    (tmp_path / "m" / onnx_network.MODEL).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"the ONNX model .*model\.onnx cannot be read"):
        load.open_classifier(tmp_path / "m").score(encoded[:1])


def test_what_was_recorded_is_in_the_metadata(tmp_path):
    metadata = {"name": "m", "shrink": {"shorter_side": 8, "quality": 95}}
    classifier.export(
        small(),
        tmp_path / "m",
        classes=["a", "b", "c"],
        input_size=16,
        preprocess=lambda image: preprocessing.shrink(image, 8, 95),
        metadata=metadata,
    )
    assert json.loads((tmp_path / "m" / model_directory.METADATA).read_text())["shrink"] == metadata["shrink"]
