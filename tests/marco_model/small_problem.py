"""A small problem to train on: a network of 16 pixels, its recipe, and examples of two classes."""

import keras
import numpy as np
import tensorflow as tf

from marco_model import layers
from marco_model.recipe import Recipe

SIZE = 16
RECIPE = Recipe(
    steps=24,
    batch_size=8,
    learning_rate=0.02,
    average_decay=0.9,
    evaluate_every=4,
    checkpoint_every=4,
    patience=20,
)


SOURCES = ("Merck", "CSIRO")


def write_examples(path, count, seed):
    """Two classes that survive distortion, 0 even, 1 with a fine checkerboard, of two sources and three raw labels."""
    rng = np.random.default_rng(seed)
    board = np.indices((24, 24)).sum(axis=0)[..., None] % 2 * 120
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index in range(count):
            image = np.clip(rng.integers(60, 120) + board * (index % 2) + rng.normal(0, 5, (24, 24, 3)), 0, 255)
            feature = {
                "image/encoded": tf.io.encode_jpeg(image.astype(np.uint8), quality=95).numpy(),
                "image/class/label": index % 2,
                "institution": SOURCES[index // 2 % 2].encode(),
                "image/class/raw": index % 3,
            }
            writer.write(
                tf.train.Example(
                    features=tf.train.Features(
                        feature={
                            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                            if isinstance(value, bytes)
                            else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
                            for name, value in feature.items()
                        }
                    )
                ).SerializeToString()
            )
    return [str(path)]


def network():
    """Returns the network, always with the same initial weights."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv"),
            keras.layers.BatchNormalization(scale=False, momentum=0.5, name="norm"),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, name="logits"),
        ],
        name="small",
    )


def network_with_raw_head():
    """Returns the same network with a second head, of three raw labels."""
    alone = network()
    return layers.with_raw_head(keras.Model(alone.inputs, alone.outputs[0], name="small"), 3, seed=0)
