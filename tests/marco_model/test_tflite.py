import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from marco_data.synthetic import Settings, draw
from marco_model import saved_model
from marco_model.classifier import export
from marco_model.errors import InputError
from marco_model.inception_v3 import inception_v3
from marco_model.labels import CLASSES
from marco_model.load import open_classifier
from marco_model.preprocessing import evaluation_batch

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def drops():
    return [draw(index, Settings(shorter_side=160)).jpeg() for index in range(120)]


@pytest.fixture(scope="module")
def directory(drops, short_network, tmp_path_factory):
    """A small network whose last layer is scaled so that untrained features still separate the drops."""
    network = inception_v3(variant="paper", input_size=151, depth_multiplier=0.1)
    logits = np.concatenate(
        [network(evaluation_batch(tf.constant(drops[i : i + 20]), 151), training=False) for i in range(0, 120, 20)]
    )
    head = network.get_layer("Logits-Conv2d_1c_1x1")
    kernel, bias = head.get_weights()
    scale = 3 / logits.std(0)
    head.set_weights([kernel * scale, (bias - logits.mean(0)) * scale])
    path = tmp_path_factory.mktemp("model") / "m"
    export(network, path, classes=CLASSES, input_size=151, metadata={"name": "tried"})
    return path


def test_it_agrees_with_the_saved_model_on_every_drop(directory, drops):
    classifier = open_classifier(directory)
    model, comparison = saved_model.convert_to_checked_tflite(classifier, drops)
    assert (comparison.images, comparison.other_class) == (120, 0)
    assert comparison.largest_difference < 1e-4
    classes = classifier.score(drops).argmax(1)
    assert np.bincount(classes, minlength=4).min() > 5
    interpreter = tf.lite.Interpreter(model_content=model)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (source["shape"].tolist(), source["dtype"]) == ([1, 151, 151, 3], np.float32)
    assert (target["shape"].tolist(), target["dtype"]) == ([1, 4], np.float32)


def test_another_models_classes_are_counted(directory, drops):
    classifier = open_classifier(directory)
    scores = classifier.score(drops[:40])
    reversed_model = _reversed(classifier)
    comparison = saved_model.compare_with_tflite(classifier, saved_model.convert_to_tflite(reversed_model), drops[:40])
    assert comparison.other_class == (scores.argmax(1) != scores[:, ::-1].argmax(1)).sum() > 20
    assert comparison.largest_difference == pytest.approx(np.abs(scores - scores[:, ::-1]).max(), abs=1e-4)
    with pytest.raises(InputError, match=rf"gives {comparison.other_class} of 40 images another class"):
        saved_model.convert_to_checked_tflite(reversed_model, drops[:40])


def test_the_model_and_its_check_are_added_to_a_models_folder(directory, drops, tmp_path):
    examples = tmp_path / "eval.tfrecord"
    with tf.io.TFRecordWriter(str(examples)) as writer:
        for encoded in drops[:10]:
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    comparison = saved_model.add_tflite(str(directory), CLASSES, [str(examples)])
    assert (comparison.images, comparison.other_class) == (10, 0)
    assert json.loads((directory / saved_model.TFLITE_CHECK).read_text()) == dataclasses.asdict(comparison)
    classifier = open_classifier(directory)
    scores = saved_model.tflite_scorer((directory / saved_model.TFLITE_MODEL).read_bytes())(
        classifier.images(drops[:3])
    )
    np.testing.assert_allclose(scores, classifier.score(drops[:3]), atol=1e-4)
    assert not list((directory / "assets.extra").glob("*.partial"))


def _reversed(classifier):
    """A loaded classifier with logits in the wrong order, as a faulty conversion would give."""

    class Wrong(type(classifier)):
        @property
        def logits(self):
            right = super().logits
            return lambda images: right(images)[:, ::-1]

    classifier = open_classifier(classifier._directory)
    classifier.__class__ = Wrong
    return classifier
