import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from marco_data.contract import ENCODED, build_example
from marco_model import layers
from marco_model.classifier import EXAMPLE_IMAGE, export
from marco_model.errors import InputError
from marco_model.inception_v3 import inception_v3
from marco_model.labels import CLASSES
from marco_model.load import open_classifier
from marco_model.model_directory import METADATA, WEIGHTS
from marco_model.preprocessing import evaluation_batch, shrink


@pytest.fixture(scope="module")
def small(short_network):
    return inception_v3(variant="paper", input_size=151, depth_multiplier=0.1, num_classes=3, auxiliary=True)


def test_both_signatures_give_the_networks_scores_under_fixed_names(small, tmp_path, encoded):
    classes = ("Dust", "Needles", "Nothing")
    metadata = {"name": "small", "variant": "paper"}
    export(small, tmp_path / "model", classes=classes, input_size=151, temperature=2.5, metadata=metadata)
    saved = tf.saved_model.load(str(tmp_path / "model"))
    logits = small(evaluation_batch(tf.constant(encoded), 151), training=False)["logits"].numpy()
    records = [
        build_example(
            encoded=image,
            image_format="JPEG",
            height=960,
            width=1280,
            filename="drop.jpeg",
            image_id=index,
            label=0,
            label_text="Clear",
            label_raw=0,
            source=0,
        ).SerializeToString()
        for index, image in enumerate(encoded)
    ]
    for signature, inputs in (
        ("serving_default", {"image_bytes": tf.constant(encoded)}),
        ("serving_examples", {"examples": tf.constant(records)}),
    ):
        outputs = saved.signatures[signature](**inputs)
        assert set(outputs) == {"scores", "classes", "class", "probabilities", "version"}
        np.testing.assert_allclose(outputs["scores"], softmax(logits, axis=1), atol=1e-5)
        np.testing.assert_allclose(outputs["probabilities"], softmax(logits / 2.5, axis=1), atol=1e-5)
        assert outputs["class"].numpy().tolist() == [classes[row.argmax()].encode() for row in logits]
        assert outputs["version"].numpy().tolist() == [b"small"] * len(encoded)
        assert outputs["classes"].numpy().tolist() == [[name.encode() for name in classes]] * len(encoded)
    assert json.loads((tmp_path / "model" / METADATA).read_text()) == {
        "name": "small",
        "variant": "paper",
        "classes": list(classes),
        "input_size": 151,
        "temperature": 2.5,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_serving_shrinks_images_as_training_did(small, tmp_path, encoded):
    def preprocess(image):
        return shrink(image, 160, 50)

    export(small, tmp_path / "m", classes="abc", input_size=151, preprocess=preprocess, metadata={})
    shrunk = [preprocess(tf.constant(image)).numpy() for image in encoded]
    scores = open_classifier(tmp_path / "m").score(encoded)
    np.testing.assert_allclose(
        scores, tf.nn.softmax(small(evaluation_batch(tf.constant(shrunk), 151))["logits"]), atol=1e-5
    )


def test_a_raw_head_has_a_signature_of_its_own_and_the_others_stay(small, tmp_path, encoded):
    model = layers.with_raw_head(small, 5, seed=0)
    names = ("clear drop", "needles", "plates", "film", "dark")
    export(model, tmp_path / "raw", classes="abc", input_size=151, raw_labels=names, metadata={"name": "raw"})
    export(small, tmp_path / "plain", classes="abc", input_size=151, metadata={"name": "raw"})
    raw, plain = (tf.saved_model.load(str(tmp_path / name)) for name in ("raw", "plain"))
    assert set(plain.signatures) == {"serving_default", "serving_examples"}
    assert set(raw.signatures) == {*plain.signatures, "serving_raw"}
    images = tf.constant(encoded)
    ours, theirs = (saved.signatures["serving_default"](image_bytes=images) for saved in (raw, plain))
    assert set(ours) == set(theirs)
    np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=1e-6)
    outputs = raw.signatures["serving_raw"](image_bytes=images)
    logits = model(evaluation_batch(images, 151), training=False)["raw_logits"].numpy()
    assert set(outputs) == {"scores", "classes", "class", "version"}
    np.testing.assert_allclose(outputs["scores"], softmax(logits, axis=1), atol=1e-5)
    assert outputs["classes"].numpy().tolist() == [[name.encode() for name in names]] * len(encoded)
    assert outputs["class"].numpy().tolist() == [names[row.argmax()].encode() for row in logits]
    assert outputs["version"].numpy().tolist() == [b"raw"] * len(encoded)
    records, weights = (tmp_path / "raw" / name for name in (METADATA, WEIGHTS))
    assert json.loads(records.read_text())["raw_labels"] == list(names)
    with np.load(weights) as arrays:
        np.testing.assert_array_equal(arrays[f"{layers.RAW_LAYER}/kernel"], model.get_layer(layers.RAW_LAYER).kernel)
    scored = [open_classifier(tmp_path / name).score(encoded) for name in ("raw", "plain")]
    np.testing.assert_allclose(*scored, atol=1e-6)


@pytest.mark.parametrize("names", [(), ("needles", "plates")])
def test_names_that_do_not_fit_the_raw_head_are_refused(small, tmp_path, names):
    model = layers.with_raw_head(small, 5, seed=0)
    with pytest.raises(InputError, match=f"{len(names)} raw label names for a network with 5 outputs"):
        export(model, tmp_path / "m", classes="abc", input_size=151, raw_labels=names, metadata={})


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_makes_no_probabilities_is_refused(small, tmp_path, temperature):
    with pytest.raises(InputError, match="give a positive number"):
        export(small, tmp_path / "m", classes="abc", input_size=151, temperature=temperature, metadata={})
    assert not list(tmp_path.iterdir())


def test_without_a_name_the_version_is_the_folders(small, tmp_path, encoded):
    export(small, tmp_path / "marco-7", classes="abc", input_size=151, metadata={})
    saved = tf.saved_model.load(str(tmp_path / "marco-7"))
    assert saved.signatures["serving_default"](tf.constant(encoded[:1]))["version"].numpy().tolist() == [b"marco-7"]
    assert open_classifier(tmp_path / "marco-7").name == "marco-7"


def test_the_features_are_the_mean_over_the_last_grid(small, tmp_path, encoded):
    export(small, tmp_path / "m", classes="abc", input_size=151, metadata={})
    grid = keras.Model(small.inputs, small.get_layer("Mixed_7c").output)(evaluation_batch(tf.constant(encoded), 151))
    loaded = open_classifier(tmp_path / "m")
    np.testing.assert_allclose(loaded.embed(encoded), np.mean(grid, axis=(1, 2)), atol=1e-5)
    assert loaded.embed([]).shape == (0, grid.shape[-1])


def test_nothing_is_overwritten_and_names_must_fit(small, tmp_path):
    with pytest.raises(InputError, match="4 class names for a network with 3"):
        export(small, tmp_path / "model", classes=CLASSES, input_size=151, metadata={})
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export(small, tmp_path, classes="abc", input_size=151, metadata={})
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_the_feature_is_the_contracts():
    assert EXAMPLE_IMAGE == ENCODED
