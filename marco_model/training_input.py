"""The input of training and its evaluation: records of encoded images to batches.

A record's label is the index of its class, an int64 scalar; where the index asks for more `targets`, int64 [3]: class,
source and raw label, −1 for what is unknown or hidden.

Batches of a training hold uint8 windows; the host decodes only the window, the accelerator distorts it
(`augmentation.py`). Batches of an evaluation hold whole images, prepared as the served model prepares them.

Records are read by their place (`example_files.py`), so that each epoch goes through all of them in a random order of
its own whatever their order in the files is, a resumed training reads nothing of what it has seen, and each of several
processes reads its own share alone.
"""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import tensorflow as tf

from marco_model import example_files, pixels, preprocessing, recipe as recipes, store
from marco_model.example_files import FRAME_BYTES, RecordIndex

Example = tuple[tf.Tensor, tf.Tensor]
"""An encoded image or its window, and its label."""

PADDING = -1
"""The label of the blank images that fill the last evaluation batch."""

FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}

REMOTE_READS = 64
"""Records read at the same time from a store that answers after some tens of milliseconds."""


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of every batch that process `index` of `count` takes: consecutive examples, as many for each process."""

    index: int = 0
    count: int = 1


ALONE = Share()


def reader(records: RecordIndex) -> Callable[[tf.Tensor], Example]:
    """Returns the function, for TensorFlow's graphs, from a record's number, int64, to its encoded image and label."""
    features = {**FEATURES, **records.targets.features()}
    files, file = tf.constant(records.files), tf.constant(records.file)
    offset, length = tf.constant(records.offset), tf.constant(records.length)

    def read(number: tf.Tensor) -> Example:
        # Opened again for each record, which costs far less than decoding; a buffer of the record's size makes it a
        # single read, which is what counts in an object store.
        dataset = tf.raw_ops.TFRecordDatasetV2(
            filenames=files[file[number]][None],
            compression_type="",
            buffer_size=length[number] + FRAME_BYTES,
            byte_offsets=offset[number][None],
        )
        types = {"output_types": [tf.string], "output_shapes": [[]]}
        first = tf.raw_ops.TakeDataset(input_dataset=dataset, count=tf.constant(1, tf.int64), **types)
        parsed = tf.io.parse_single_example(tf.raw_ops.DatasetToSingleElement(dataset=first, **types)[0], features)
        return parsed["image/encoded"], _label(parsed, records.targets)

    return read


def _label(parsed: dict[str, tf.Tensor], sought: example_files.Targets) -> tf.Tensor:
    label = parsed["image/class/label"]
    if not sought:
        return label

    def number(feature: str, known: Collection[Any]) -> tf.Tensor:
        """Returns the place of the feature's value among the known ones, int64."""
        if not known:
            return tf.constant(example_files.UNKNOWN, tf.int64)
        found = tf.equal(parsed[feature], tf.constant(list(known), parsed[feature].dtype))
        return tf.where(tf.reduce_any(found), tf.argmax(tf.cast(found, tf.int8)), example_files.UNKNOWN)

    source, raw = number(sought.attribute, sought.sources), number(example_files.RAW_LABEL, sought.raw_labels)
    labelled = number(sought.attribute, sought.unlabelled) < 0
    return tf.stack([tf.where(labelled, label, PADDING), source, tf.where(labelled, raw, example_files.UNKNOWN)])


def class_of(labels: tf.Tensor, rank: int = 0) -> tf.Tensor:
    """Returns the class's index, int64, of the label that a reader returns, or, with `rank` 1, of those of a batch."""
    return labels if labels.shape.rank == rank else labels[..., 0]


def examples(records: RecordIndex) -> tf.data.Dataset:
    """Returns (encoded image, int64 label) of all records in the order of the files."""
    numbers = tf.data.Dataset.range(len(records))
    return preprocessing.without_autotuning(numbers.map(reader(records), num_parallel_calls=_parallel(records)))


def training_batches(
    records: RecordIndex, recipe: recipes.Recipe, size: int, *, first: int = 0, share: Share = ALONE
) -> tf.data.Dataset:
    """Returns (uint8 [batch, size, size, 3] windows, labels) from step `first` on, without end.

    Labels: int64 [batch], or [batch, 3] with more targets.

    Order and windows depend only on the recipe's seed and the step: resumed training sees what uninterrupted training
    would have seen, and the shares of several processes make up the batches of a single one. An epoch has as many
    full batches as there are; the images beyond them, others in each epoch, are left out.
    """
    batch, own = recipe.batch_size, recipe.batch_size // share.count
    steps = len(records) // batch
    window = _window(records, recipe, size)

    def example(number: tf.Tensor) -> Example:
        step, place = number // own, number % own
        seed = tf.stack([tf.constant(recipe.seed, tf.int64), step // steps])
        return window(seed, step % steps * batch + share.index * own + place)

    numbers = tf.data.Dataset.range(first * own, tf.int64.max)
    return _prepared(numbers, example, own, records)


def endless_batches(records: RecordIndex, recipe: recipes.Recipe, size: int) -> tf.data.Dataset:
    """Returns (windows, labels, seed) without end, in another order each time: an asynchronous worker's input.

    Windows and labels are those of `training_batches`; `seed`, int64 [2], is the stream and the batch's number in it.
    """
    # Drawn where the dataset runs, so that each worker, and a restarted worker, has another stream.
    stream = tf.cast(tf.timestamp() * 1e6, tf.int64)
    window = _window(records, recipe, size)

    def example(number: tf.Tensor) -> Example:
        return window(tf.stack([stream, number // len(records)]), number % len(records))

    examples = tf.data.Dataset.range(tf.int64.max).map(example, num_parallel_calls=tf.data.AUTOTUNE)
    numbered = examples.batch(recipe.batch_size, drop_remainder=True).enumerate()
    return numbered.map(lambda number, batch: (*batch, tf.stack([stream, number]))).prefetch(2)


def _window(records: RecordIndex, recipe: recipes.Recipe, size: int) -> Callable[[tf.Tensor, tf.Tensor], Example]:
    """Returns the function from an epoch's seed, int64 [2], and a position in the epoch to a window and its label."""
    read, last = reader(records), tf.constant(len(records) - 1, tf.int64)

    def window(seed: tf.Tensor, position: tf.Tensor) -> Example:
        image, label = read(tf.random.experimental.index_shuffle(position, seed, last))
        place = tf.random.experimental.stateless_fold_in(seed, position)
        return preprocessing.random_window(image, size, place, recipe.window_share), label

    return window


def evaluation_batches(records: RecordIndex, *, size: int, batch_size: int, share: Share = ALONE) -> tf.data.Dataset:
    """Returns one pass of (float32 [batch, size, size, 3] in [-1, 1], int64 [batch] labels), prepared as in serving.

    All batches are full, and every share has as many; blank images after the last have the label `PADDING`, as images
    whose label is hidden do.
    """
    own, count = batch_size // share.count, len(records)
    read = reader(records)

    def example(number: tf.Tensor) -> Example:
        position = number // own * batch_size + share.index * own + number % own

        def prepare() -> Example:
            image, label = read(position)
            return preprocessing.evaluation_image(image, size), class_of(label)

        blank = tf.zeros([size, size, 3]), tf.constant(PADDING, tf.int64)
        return tf.cond(position < count, prepare, lambda: blank)

    numbers = tf.data.Dataset.range(-(-count // batch_size) * own)
    return _prepared(numbers, example, own, records)


def _parallel(records: RecordIndex) -> int:
    """Returns how many records are read and decoded at the same time."""
    return max(pixels.cores(), REMOTE_READS if store.is_remote(records.files[0]) else 0)


def _prepared(
    numbers: tf.data.Dataset, example: Callable[[tf.Tensor], Example], size: int, records: RecordIndex
) -> tf.data.Dataset:
    """Returns batches of the examples of `numbers`, made ahead, by as many threads as records are read at a time.

    Each thread writes its examples into the batch; by default one thread of tf.data copies them all.
    """
    batches = numbers.map(example, num_parallel_calls=_parallel(records)).batch(size, drop_remainder=True)
    options = tf.data.Options()
    options.threading.private_threadpool_size = _parallel(records)
    options.experimental_optimization.map_and_batch_fusion = True
    return preprocessing.without_autotuning(batches.prefetch(2).with_options(options))
