"""Which programs a SavedModel may be; tests of its scores are in test_load.py and test_classifier.py."""

import re
from pathlib import Path

import pytest
import tensorflow as tf

from marco_model import saved_model
from marco_model.errors import InputError


def read_a_file(images):
    return tf.io.read_file("/etc/hostname")


def write_a_file(images):
    tf.io.write_file("executed", images[0])
    return images


def write_weights(images):
    tf.raw_ops.SaveV2(prefix="executed", tensor_names=["a"], shape_and_slices=[""], tensors=[images])
    return images


def list_files(images):
    return tf.io.matching_files("/etc/*")


def run_python(images):
    return tf.py_function(lambda value: value, [images], tf.string)


def count(images):
    return tf.data.TFRecordDataset(images).reduce(tf.constant(0), lambda total, _: total + 1)


def print_to_a_file(images):
    tf.print(images, output_stream="file://executed")
    return images


def nested(images):
    return tf.cond(tf.size(images) > 3, lambda: write_a_file(images), lambda: images)


@pytest.mark.parametrize(
    ("program", "operation"),
    [
        (read_a_file, "ReadFile"),
        (write_a_file, "WriteFile"),
        (write_weights, "SaveV2"),
        (list_files, "MatchingFiles"),
        (run_python, "EagerPyFunc"),
        (count, "TFRecordDataset"),
        (print_to_a_file, "PrintV2"),
        (nested, "WriteFile"),
    ],
)
def test_a_model_that_does_more_than_classify_is_not_loaded(tmp_path, monkeypatch, program, operation):
    monkeypatch.chdir(tmp_path)
    module = tf.Module()
    module.weight = tf.Variable(1.0)
    module.score = tf.function(
        lambda image_bytes: {"scores": program(image_bytes)}, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    tf.saved_model.save(module, "model", signatures={"serving_default": module.score})
    tf.saved_model.load("model")  # TensorFlow itself has no objection.
    with pytest.raises(InputError, match=rf"is a program that does more than classify.*{operation}"):
        saved_model.load("model")


def test_a_model_that_computes_is_loaded(tmp_path):
    module = tf.Module()
    module.weight = tf.Variable(2.0)
    module.score = tf.function(
        lambda values: tf.while_loop(lambda x: x < 100.0, lambda x: x * module.weight, [values])[0],
        input_signature=[tf.TensorSpec([], tf.float32)],
    )
    tf.saved_model.save(module, str(tmp_path / "model"))
    assert saved_model.load(tmp_path / "model").score(1.0) == 128.0


def test_what_is_no_model_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"no model in .*: saved_model\.pb is missing"):
        saved_model.load(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(InputError, match="cannot be loaded: it is damaged"):
        saved_model.load(tmp_path)


def test_models_are_loaded_in_one_place():
    """Beside the module that MLflow runs by itself, which may import nothing of this project (SECURITY.md)."""
    root = Path(saved_model.__file__).parents[1]
    packages = ("marco_model", "marco_data", "marco_scoring", "components", "pipelines")
    loaders = re.compile(r"tf\.saved_model\.load\(|(keras|pyfunc)[\w.]*\.load_model\(|RunInference|pickle\.loads?\(")
    sources = {path: path.read_text() for package in packages for path in (root / package).rglob("*.py")}
    assert {path.name for path, text in sources.items() if loaders.search(text)} == {
        "saved_model.py",
        "scoring_model.py",
    }
