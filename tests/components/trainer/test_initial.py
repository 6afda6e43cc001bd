"""A whole job that begins with the model of another one."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from components.trainer import execution, job as jobs
from marco_model.load import open_classifier
from marco_model.network import Network
from marco_model.recipe import Recipe
from tests import small_training, stores

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("short_network")]


@pytest.fixture
def small_job(tmp_path):
    """Two steps on eight images of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 160, 170, 3), np.uint8)
    path = str(tmp_path / "examples.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for index, image in enumerate(pixels):
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(tf.io.encode_jpeg(image).numpy())
            example.features.feature["image/class/label"].int64_list.value.append(index % 2)
            writer.write(example.SerializeToString())
    return small_training.job(
        key="key",
        network=Network(input_size=151, depth_multiplier=0.1, auxiliary=False, batch_norm_momentum=0.5),
        recipe=Recipe(steps=2, batch_size=4, learning_rate=0.01, evaluate_every=2, average_decay=0.5),
        tracking=jobs.TrackingServer(uri=stores.local_store(tmp_path), experiment="tests"),
        data=jobs.DataSet(source=str(tmp_path), fingerprint="0"),
        train_files=[path],
        validation_files=[path],
        checkpoints=str(tmp_path / "checkpoints"),
        model_directory=str(tmp_path / "models" / "1"),
    )


def weights(folder):
    with np.load(f"{folder}/assets.extra/weights.npz") as arrays:
        return {path: arrays[path] for path in arrays.files}


def test_a_training_continues_from_an_exported_model_with_other_classes_and_trains_its_head_alone(small_job, tmp_path):
    execution.run(small_job)
    network = dataclasses.replace(small_job.network, initial=str(tmp_path / "models"), trainable="head", auxiliary=None)
    changes = {
        "network": network,
        "classes": ("Crystals", "Clear", "Skin"),
        "checkpoints": str(tmp_path / "second"),
        "model_directory": str(tmp_path / "models" / "2"),
        "key": "second",
    }
    second = small_job.model_copy(update=changes)
    execution.run(second)
    before, after = weights(small_job.model_directory), weights(second.model_directory)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {"Logits-Conv2d_1c_1x1/kernel", "Logits-Conv2d_1c_1x1/bias"}
    assert open_classifier(tmp_path / "models").classes == ("Crystals", "Clear", "Skin")
