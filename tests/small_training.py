"""A small training for tests: its examples, and the job that trains a tiny network on them."""

import pathlib

import numpy as np
import tensorflow as tf

from components.settings import Transform
from components.trainer import job as jobs
from marco_data import contract
from marco_model.network import Network
from marco_model.recipe import Engine, Recipe
from tests import stores

CLASSES = ("Clear", "Crystals")
INSTITUTIONS = ("Merck", "CSIRO", "HWMRI")


def write_examples(path: pathlib.Path, count: int) -> list[bytes]:
    """Writes grey drops, and brighter ones with a checkerboard, of each institution in turn; returns their images."""
    rng = np.random.default_rng(count)
    board = np.indices((160, 170)).sum(axis=0)[..., None] // 8 % 2 * 120
    images = []
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index in range(count):
            pixels = np.clip(70 + board * (index % 2) + rng.normal(0, 5, (160, 170, 3)), 0, 255).astype(np.uint8)
            images.append(tf.io.encode_jpeg(pixels).numpy())
            example = contract.build_example(
                encoded=images[-1],
                image_format="JPEG",
                height=160,
                width=170,
                filename=f"{index}.jpg",
                image_id=index,
                label=index % 2,
                label_text=CLASSES[index % 2],
                label_raw=index % 2,
                source=0,
            )
            institution = INSTITUTIONS[index // 2 % len(INSTITUTIONS)]
            example.features.feature[contract.INSTITUTION].bytes_list.value.append(institution.encode())
            writer.write(example.SerializeToString())
    return images


def small_job(folder: pathlib.Path) -> jobs.TrainingJob:
    """Returns a job over 24 examples to train on and 8 to evaluate, written to `folder`."""
    write_examples(folder / "train.tfrecord", 24)
    write_examples(folder / "eval.tfrecord", 8)
    recipe = Recipe(steps=8, batch_size=4, learning_rate=0.01, evaluate_every=4, checkpoint_every=4, average_decay=0.5)
    return jobs.TrainingJob(
        key="key",
        name="small",
        classes=CLASSES,
        network=Network(input_size=151, depth_multiplier=0.1, auxiliary=False, batch_norm_momentum=0.5),
        recipe=recipe,
        engine=Engine(kind="parameter_server"),
        transform=Transform(),
        tracking=jobs.TrackingServer(uri=stores.local_store(folder), experiment="tests"),
        data=jobs.DataSet(source=str(folder), fingerprint="0"),
        train_files=[str(folder / "train.tfrecord")],
        validation_files=[str(folder / "eval.tfrecord")],
        checkpoints=str(folder / "checkpoints"),
        model_directory=str(folder / "artifact" / "Format-Serving"),
    )


def job(**changes) -> jobs.TrainingJob:
    """Returns a job that trains nothing: it has what a job must have, and `changes`."""
    fields = {
        "classes": CLASSES,
        "network": Network(),
        "recipe": Recipe(),
        "engine": Engine(),
        "transform": Transform(),
        "tracking": jobs.TrackingServer(uri="sqlite:///x", experiment="tests"),
        "name": "small",
        "checkpoints": "checkpoints",
    }
    return jobs.TrainingJob(**fields | changes)
