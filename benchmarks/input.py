"""Host input of training against the input as it is commonly written, images a second on one core.

Ours is `marco_model.training_input.epoch_batches`: encoded images shuffled, of each just a random window decoded, the
same for the same seed, into uint8 batches. The peer decodes whole images, crops and distorts them one by one with
`tf.image`; in our training the accelerator distorts (`benchmarks.augmentation` tells what that costs). Images are real
JPEGs of 1280x960 pixels in memory; with `--records` both read and parse them from ExampleGen's files.

    python -m benchmarks.input
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.ingest import IMAGES, distinct

SIZE = 599
"""Pixels of the window, the paper's."""
BATCH = 32
SHUFFLE = 128


def one_core() -> None:
    """Keeps this process, and what TensorFlow starts in it, on one core; before anything of TensorFlow runs."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def real_images(folder: Path = IMAGES) -> list[bytes]:
    """Returns the JPEGs in a folder; the default's are six of 1280x960 pixels."""
    return [path.read_bytes() for path in sorted(folder.glob("*.jp*g"))]


def write_records(encoded: Sequence[bytes], folder: Path, count: int, files: int = 4) -> list[str]:
    """Writes `count` records as ExampleGen writes them, no two images the same bytes; returns the files."""
    import tensorflow as tf

    from components.example_gen.files import RecordWriter

    written = []
    for number in range(files):
        written.append(str(folder / f"data_tfrecord-{number:05d}-of-{files:05d}.gz"))
        writer = RecordWriter(written[-1])
        for index in range(number, count, files):
            jpeg = tf.train.BytesList(value=[distinct(encoded[index % len(encoded)], index)])
            features = {
                "image/encoded": tf.train.Feature(bytes_list=jpeg),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[index % 4])),
            }
            writer.write_record(
                tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)
            )
        writer.close()
    return written


def training_examples(folder: Path, count: int, records: Path | None = None) -> Any:
    """Returns a data set of `count` (encoded image, label) of a folder's JPEGs, over and over.

    They are in memory; with a folder for `records` they are written there and read from there.
    """
    import tensorflow as tf

    encoded = real_images(folder)
    if records is not None:
        from marco_model import training_input

        return training_input.encoded_images(write_records(encoded, records, count))
    labels = tf.zeros([len(encoded)], tf.int64)
    return tf.data.Dataset.from_tensor_slices((encoded, labels)).repeat().take(count)


def training_windows(examples: Any, count: int) -> Any:
    """Returns the batches of the training input of `marco_model.training_input`."""
    from marco_model import training_input

    return training_input.epoch_batches(
        examples, epoch=0, skip=0, batches=count // BATCH, size=SIZE, batch_size=BATCH, shuffle=SHUFFLE, seed=0
    )


def reference_windows(examples: Any) -> Any:
    """Returns the batches of the input as it is commonly written: images decoded, cropped and distorted one by one.

    The operations are those of TF-Slim's Inception preprocessing, in its first order, and the paper's flips.
    """
    import tensorflow as tf

    def window(encoded: Any, label: Any) -> Any:
        image = tf.image.random_crop(tf.io.decode_jpeg(encoded, channels=3), [SIZE, SIZE, 3])
        image = tf.image.convert_image_dtype(image, tf.float32)
        image = tf.image.random_flip_left_right(tf.image.random_flip_up_down(image))
        image = tf.image.random_brightness(image, 32 / 255)
        image = tf.image.random_saturation(image, 0.5, 1.5)
        image = tf.image.random_hue(image, 0.2)
        image = tf.image.random_contrast(image, 0.5, 1.5)
        return tf.clip_by_value(image, 0.0, 1.0) * 2.0 - 1.0, label

    return examples.shuffle(SHUFFLE).map(window).batch(BATCH, drop_remainder=True).prefetch(2)


def bare_windows(encoded: Sequence[bytes], count: int) -> Any:
    """Returns batches of random windows of images in memory, decoded one by one, and nothing else done to them.

    Batched, since taking each window out of tf.data by itself would be slower.
    """
    import tensorflow as tf

    def window(jpeg: Any, shape: Any) -> Any:
        corner = tf.cast(tf.random.uniform([2]) * tf.cast(shape[:2] - SIZE + 1, tf.float32), tf.int32)
        return tf.io.decode_and_crop_jpeg(jpeg, tf.concat([corner, [SIZE, SIZE]], 0), channels=3)

    shapes = [tf.io.extract_jpeg_shape(jpeg) for jpeg in encoded]
    repeated = tf.data.Dataset.from_tensor_slices((list(encoded), shapes)).repeat().take(count)
    return repeated.map(window).batch(BATCH, drop_remainder=True)


def rate(batches: Any) -> float:
    """Returns images a second of processor time, first batch to last, without what an epoch's beginning and end cost.

    On one core that is the time there is, less what other programs on the machine took of it.
    Its beginning builds graphs, its end waits for tf.data's tuning thread: together about a second an epoch.
    """
    times = [time.process_time() for _ in batches]
    return BATCH * (len(times) - 1) / (times[-1] - times[0])


def in_turns(sides: dict[str, Any], rounds: int) -> dict[str, float]:
    """Returns each side's images a second: warmed up once, then measured in turns, the median of the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, batches in sides.items():
            measured = rate(batches)
            if number:
                rates[name].append(measured)
                print(f"round {number}, {name}: {measured:.1f} images/s", file=sys.stderr, flush=True)
    return {name: statistics.median(values) for name, values in rates.items()}


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path, default=IMAGES, help="folder of JPEGs, 599 pixels at least")
    options.add_argument("--count", type=int, default=384, help="windows a round, in batches of 32")
    options.add_argument("--rounds", type=int, default=5, help="turns for each side")
    options.add_argument("--records", action="store_true", help="both sides read records from files")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        examples = training_examples(chosen.images, chosen.count, Path(scratch) if chosen.records else None)
        rates = in_turns(
            {
                "ours": training_windows(examples, chosen.count),
                "peer": reference_windows(examples),
            },
            chosen.rounds,
        )
    report(rates["ours"], rates["peer"], "images/s on one core")


if __name__ == "__main__":
    one_core()
    main()
