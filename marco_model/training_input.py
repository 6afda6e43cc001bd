"""Training's input: encoded images to shuffled batches of uint8 windows, the same for the same seed and position.

The host decodes just the window and leaves it uint8; the accelerator distorts (`augmentation.py`).
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from marco_model import preprocessing
from marco_model.preprocessing import cores, untuned

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
    return int(untuned(records).reduce(tf.constant(0, tf.int64), lambda total, batch: total + tf.size(batch, tf.int64)))


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that one of several processes takes: a run of examples, the same length for each."""

    index: int = 0
    of: int = 1


ALONE = Share()


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
    share: Share = ALONE,
) -> tf.data.Dataset:
    """Returns one epoch of (uint8 [batch, size, size, 3] windows, int64 [batch] labels) from batch `skip` on.

    Order and windows depend on `seed`, the epoch and the position alone: training that is resumed sees what
    uninterrupted training would have seen, and the shares of several processes make up the batches of a single one.
    Each process reads all images and decodes its own. What is left after `batches` full batches is left out.
    """

    def window(position: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = example
        draw_seed = tf.random.experimental.stateless_fold_in(tf.constant([seed, epoch], tf.int64), position)
        return preprocessing.random_window(image, size, draw_seed), label

    shuffled = encoded.shuffle(shuffle, seed=seed * 1_000_003 + epoch).enumerate()
    wanted = shuffled.take(batches * batch_size).skip(skip * batch_size)
    windows = _own(wanted, batch_size, share).map(window, num_parallel_calls=cores())
    return untuned(windows.batch(batch_size // share.of, drop_remainder=True).prefetch(2))


def _own(enumerated: tf.data.Dataset, batch_size: int, share: Share) -> tf.data.Dataset:
    """Keeps of (position, example) those of the share."""
    if share.of == 1:
        return enumerated
    own = batch_size // share.of
    return enumerated.filter(lambda position, example: tf.equal(position % batch_size // own, share.index))


def endless_batches(encoded: tf.data.Dataset, *, size: int, batch_size: int, shuffle: int) -> tf.data.Dataset:
    """Returns (windows, labels, seed) without end, in an order of its own each time: an asynchronous worker's input.

    Windows and labels are those of `epoch_batches`; `seed`, int64 [2], tells the stream and the batch's number in it.
    """
    # Drawn where the dataset runs, so that each worker, and a worker that came back, has another.
    stream = tf.cast(tf.timestamp() * 1e6, tf.int64)

    def window(position: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = example
        draw_seed = tf.random.experimental.stateless_fold_in(tf.stack([stream, 0]), position)
        return preprocessing.random_window(image, size, draw_seed), label

    shuffled = encoded.shuffle(shuffle, seed=stream).repeat().enumerate()
    batches = shuffled.map(window, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True)
    numbered = batches.enumerate()
    return numbered.map(lambda number, batch: (*batch, tf.stack([stream, number]))).prefetch(2)


PADDING = -1
"""The label of what fills the last evaluation batch."""


def evaluation_batches(
    files: list[str], *, images: int, size: int, batch_size: int, share: Share = ALONE
) -> tf.data.Dataset:
    """Returns one pass of (float32 [batch, size, size, 3] in [-1, 1], int64 [batch] labels), the served path.

    All batches are full, and every share has as many; what fills the last of the `images` has the label `PADDING`.
    """

    def prepare(_: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = example
        return preprocessing.evaluation_image(image, size), label

    own = batch_size // share.of
    batches = -(-images // batch_size)
    prepared = _own(encoded_images(files).enumerate(), batch_size, share).map(prepare, num_parallel_calls=cores())
    blank = (tf.zeros([size, size, 3]), tf.constant(PADDING, tf.int64))
    padding = tf.data.Dataset.from_tensors(blank).repeat(own)
    return untuned(prepared.concatenate(padding).batch(own, drop_remainder=True).take(batches).prefetch(2))
