import json

import numpy as np
import pytest
import tensorflow as tf

from marco_data.contract import ENCODED, build_example
from marco_model.errors import InputError
from marco_model.export import EXAMPLE_IMAGE, METADATA, export
from marco_model.inception_v3 import inception_v3
from marco_model.labels import CLASSES
from marco_model.load import load
from marco_model.preprocessing import evaluation_batch, shrink


@pytest.fixture(scope="module")
def small():
    return inception_v3(variant="paper", input_size=151, depth_multiplier=0.1, num_classes=3, auxiliary=True)


def test_both_signatures_give_the_networks_scores_under_fixed_names(small, tmp_path, encoded):
    classes = ("Dust", "Needles", "Nothing")
    export(small, tmp_path / "model", classes=classes, input_size=151, metadata={"name": "small", "variant": "paper"})
    saved = tf.saved_model.load(str(tmp_path / "model"))
    expected = tf.nn.softmax(small(evaluation_batch(tf.constant(encoded), 151), training=False)["logits"])
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
        assert set(outputs) == {"scores", "classes"}
        np.testing.assert_allclose(outputs["scores"], expected, atol=1e-5)
        assert outputs["classes"].numpy().tolist() == [[name.encode() for name in classes]] * len(encoded)
    assert json.loads((tmp_path / "model" / METADATA).read_text()) == {
        "name": "small",
        "variant": "paper",
        "classes": list(classes),
        "input_size": 151,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_serving_shrinks_images_as_training_did(small, tmp_path, encoded):
    def preprocess(image):
        return shrink(image, 160, 50)

    export(small, tmp_path / "m", classes="abc", input_size=151, preprocess=preprocess, metadata={})
    shrunk = [preprocess(tf.constant(image)).numpy() for image in encoded]
    scores = load(tmp_path / "m").score(encoded)
    np.testing.assert_allclose(
        scores, tf.nn.softmax(small(evaluation_batch(tf.constant(shrunk), 151))["logits"]), atol=1e-5
    )


def test_nothing_is_overwritten_and_names_must_fit(small, tmp_path):
    with pytest.raises(InputError, match="4 class names for a network with 3"):
        export(small, tmp_path / "model", classes=CLASSES, input_size=151, metadata={})
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export(small, tmp_path, classes="abc", input_size=151, metadata={})
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_the_feature_is_the_contracts():
    assert EXAMPLE_IMAGE == ENCODED
