"""The input of training and its evaluation: TFRecords of encoded images to batches.

Batches of a training hold uint8 windows, the same for the same seed and position; the host decodes only the window, the
accelerator distorts it (`augmentation.py`). Batches of an evaluation hold whole images, prepared as the served model
prepares them.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from marco_model import preprocessing, recipe as recipes

Example = tuple[tf.Tensor, tf.Tensor]
"""An encoded image or its window, and its label."""

PADDING = -1
"""The label of the blank images that fill the last evaluation batch."""

FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that process `index` of `count` takes: consecutive examples, as many for each process."""

    index: int = 0
    count: int = 1


ALONE = Share()


def encoded_images(files: list[str]) -> tf.data.Dataset:
    """Returns (encoded image, int64 label) of gzip TFRecords of `tf.train.Example`, in a fixed order.

    The files are read alternately, so that an order by file mixes before any shuffling.
    """

    def read(file: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(file, compression_type="GZIP")

    def parse(batch: tf.Tensor) -> Example:
        parsed = tf.io.parse_example(batch, FEATURES)
        return parsed["image/encoded"], parsed["image/class/label"]

    records = tf.data.Dataset.from_tensor_slices(sorted(files)).interleave(
        read, cycle_length=min(len(files), 16), block_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return records.batch(64).map(parse, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def count(files: list[str]) -> int:
    """Returns how many records there are, without parsing them."""
    records = tf.data.TFRecordDataset(sorted(files), compression_type="GZIP").batch(256)
    total = preprocessing.without_autotuning(records).reduce(
        tf.constant(0, tf.int64), lambda total, batch: total + tf.size(batch, tf.int64)
    )
    return int(total)


def epoch_batches(
    encoded: tf.data.Dataset,
    recipe: recipes.Recipe,
    *,
    epoch: int,
    skip: int,
    batches: int,
    size: int,
    share: Share = ALONE,
) -> tf.data.Dataset:
    """Returns one epoch of (uint8 [batch, size, size, 3] windows, int64 [batch] labels) from batch `skip` on.

    Order and windows depend only on the recipe's seed, the epoch and the position: resumed training sees what
    uninterrupted training would have seen, and the shares of several processes make up the batches of a single one.
    Each process reads all images and decodes its own. Images beyond `batches` full batches are left out.
    """
    batch_size = recipe.batch_size
    window = _random_windows(size, tf.constant([recipe.seed, epoch], tf.int64))
    shuffled = encoded.shuffle(recipe.shuffle, seed=recipe.seed * 1_000_003 + epoch).enumerate()
    remaining = shuffled.take(batches * batch_size).skip(skip * batch_size)
    windows = _own(remaining, batch_size, share).map(window, num_parallel_calls=preprocessing.cores())
    return preprocessing.without_autotuning(windows.batch(batch_size // share.count, drop_remainder=True).prefetch(2))


def _random_windows(size: int, seed: tf.Tensor) -> Callable[..., Example]:
    """Returns the function from (position, example) to the example's window, whose place `seed` and position decide."""

    def window(position: tf.Tensor, example: Example) -> Example:
        image, label = example
        return preprocessing.random_window(image, size, tf.random.experimental.stateless_fold_in(seed, position)), label

    return window


def _own(enumerated: tf.data.Dataset, batch_size: int, share: Share) -> tf.data.Dataset:
    """Keeps the pairs of (position, example) that belong to the share."""
    if share.count == 1:
        return enumerated
    own = batch_size // share.count
    return enumerated.filter(lambda position, example: tf.equal(position % batch_size // own, share.index))


def endless_batches(encoded: tf.data.Dataset, recipe: recipes.Recipe, size: int) -> tf.data.Dataset:
    """Returns (windows, labels, seed) without end, in another order each time: an asynchronous worker's input.

    Windows and labels are those of `epoch_batches`; `seed`, int64 [2], is the stream and the batch's number in it.
    """
    # Drawn where the dataset runs, so that each worker, and a restarted worker, has another stream.
    stream = tf.cast(tf.timestamp() * 1e6, tf.int64)
    window = _random_windows(size, tf.stack([stream, 0]))
    shuffled = encoded.shuffle(recipe.shuffle, seed=stream).repeat().enumerate()
    batches = shuffled.map(window, num_parallel_calls=tf.data.AUTOTUNE).batch(recipe.batch_size, drop_remainder=True)
    numbered = batches.enumerate()
    return numbered.map(lambda number, batch: (*batch, tf.stack([stream, number]))).prefetch(2)


def evaluation_batches(
    files: list[str], *, images: int, size: int, batch_size: int, share: Share = ALONE
) -> tf.data.Dataset:
    """Returns one pass of (float32 [batch, size, size, 3] in [-1, 1], int64 [batch] labels), prepared as in serving.

    All batches are full, and every share has as many; blank images after the `images` have the label `PADDING`.
    """

    def prepare(_: tf.Tensor, example: Example) -> Example:
        image, label = example
        return preprocessing.evaluation_image(image, size), label

    own = batch_size // share.count
    batches = -(-images // batch_size)
    examples = _own(encoded_images(files).enumerate(), batch_size, share)
    prepared = examples.map(prepare, num_parallel_calls=preprocessing.cores())
    blank = (tf.zeros([size, size, 3]), tf.constant(PADDING, tf.int64))
    padding = tf.data.Dataset.from_tensors(blank).repeat(own)
    padded = prepared.concatenate(padding).batch(own, drop_remainder=True)
    return preprocessing.without_autotuning(padded.take(batches).prefetch(2))
