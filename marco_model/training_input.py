"""Training's input: encoded images to shuffled batches of uint8 windows, the same for the same seed and position.

The host decodes just the window and leaves it uint8; the accelerator distorts (`augmentation.py`).
"""

from __future__ import annotations

import tensorflow as tf

from marco_model import preprocessing

FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}


def encoded_images(files: list[str]) -> tf.data.Dataset:
    """Returns (encoded image, int64 label) of gzip TFRecords of `tf.train.Example`, in a fixed order.

    The files are read alternately, so that an order by file mixes before any shuffling.
    """

    def read(file: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(file, compression_type="GZIP")

    def parse(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(batch, FEATURES)
        return parsed["image/encoded"], parsed["image/class/label"]

    records = tf.data.Dataset.from_tensor_slices(sorted(files)).interleave(
        read, cycle_length=min(len(files), 16), block_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return records.batch(64).map(parse, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def count(files: list[str]) -> int:
    """Returns how many records there are, without parsing them."""
    records = tf.data.TFRecordDataset(sorted(files), compression_type="GZIP").batch(256)
    return int(records.reduce(tf.constant(0, tf.int64), lambda total, batch: total + tf.size(batch, tf.int64)))


def epoch_batches(
    encoded: tf.data.Dataset,
    *,
    epoch: int,
    skip: int,
    batches: int,
    size: int,
    batch_size: int,
    shuffle: int,
    seed: int,
) -> tf.data.Dataset:
    """Returns one epoch of (uint8 [batch, size, size, 3] windows, int64 [batch] labels) from batch `skip` on.

    Order and windows depend on `seed`, the epoch and the position alone: training that is resumed sees what
    uninterrupted training would have seen. What is left after `batches` full batches is left out.
    """

    def window(position: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = example
        draw_seed = tf.random.experimental.stateless_fold_in(tf.constant([seed, epoch], tf.int64), position)
        return preprocessing.random_window(image, size, draw_seed), label

    shuffled = encoded.shuffle(shuffle, seed=seed * 1_000_003 + epoch).enumerate()
    wanted = shuffled.take(batches * batch_size).skip(skip * batch_size)
    windows = wanted.map(window, num_parallel_calls=tf.data.AUTOTUNE)
    return windows.batch(batch_size, drop_remainder=True).prefetch(2)


def evaluation_batches(files: list[str], *, size: int, batch_size: int) -> tf.data.Dataset:
    """Returns one pass of (float32 [batch, size, size, 3] in [-1, 1], int64 [batch] labels), the served path."""

    def prepare(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return preprocessing.evaluation_image(image, size), label

    prepared = encoded_images(files).map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return prepared.batch(batch_size).prefetch(2)
