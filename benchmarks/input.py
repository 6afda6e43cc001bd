"""Host input of training against the input as it is commonly written, images a second on one core.

Ours is `marco_model.training_input.training_batches`: records of ExampleGen's files in a random order, of each image
just a random window decoded, the same for the same seed, into uint8 batches. The peer reads the same files from
beginning to end, decodes whole images, crops and distorts them one by one with `tf.image`; in our training the
accelerator distorts (`benchmarks.train_step --peer undistorted` measures that). With `--peer decoding` the peer decodes
random 599x599 windows of the same JPEGs, in memory, and does nothing else, our limit. Images are real JPEGs of 1280x960
pixels. Each round has a process of its own, and the settings of TensorFlow that training has.

With `--window-share 0.7 1 --images FOLDER` ours takes windows of 70 to 100 % of the shorter side, as the preset
`finetune` does, of JPEGs of any size; with `--peer decoding` the ratio is that to native windows.

With `--processes N` ours is what so many processes deliver together, each with its share of every batch and of the
cores, as the workers of a training have; the peer is one of them alone, on one such share of the cores, times N.

With `--end` both sides pass over a dataset of which only the end differs, ours as training's inputs end and the peer's
as tf.data's do by default. A pass reads as many elements as `--seconds` have at ten milliseconds each, from a buffer
that is always full: what it takes longer is the wait for the iterator's end
(`marco_model.preprocessing.without_autotuning`).

    python -m benchmarks.input
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import benchmarks
from marco_model import example_files, preprocessing, recipe, training_input

SIZE = 599
"""Pixels of the window, the paper's."""
BATCH = 32
SHUFFLE = 128
ELEMENT_SECONDS = 0.01
"""Between two elements of a pass that `--end` measures."""


def one_core() -> None:
    """Keeps this process, and the threads that TensorFlow will start in it, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    # Raises RuntimeError if TensorFlow has started its threads.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def noise(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a batch that needs no input: uint8 [count, size, size, 3] and int64 [count] classes."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, size, size, 3), dtype=np.uint8), np.arange(count, dtype=np.int64) % 4


def repeated(encoded: list[bytes], count: int) -> Iterator[bytes]:
    """Yields the images again and again, `count` in all, of which no two have the same bytes."""
    for number in range(count):
        yield benchmarks.distinct(encoded[number % len(encoded)], number)


def write_images(encoded: list[bytes], count: int, folder: Path) -> example_files.RecordIndex:
    """Writes `count` records of the images, again and again, to files in `folder`; returns their index."""
    examples = (benchmarks.example(jpeg, number, number % 4) for number, jpeg in enumerate(repeated(encoded, count)))
    return example_files.read_index(benchmarks.write_records(folder, examples, shards=4))


def training_windows(
    records: example_files.RecordIndex,
    count: int,
    size: int = SIZE,
    batch_size: int = BATCH,
    share: training_input.Share = training_input.ALONE,
    window_share: tuple[float, float] | None = None,
) -> tf.data.Dataset:
    """Returns the share's part of the batches of `count` windows of the training input."""
    settings = recipe.Recipe(batch_size=batch_size, window_share=window_share)
    return training_input.training_batches(records, settings, size, share=share).take(count // batch_size)


def reference_windows(records: example_files.RecordIndex) -> tf.data.Dataset:
    """Returns the batches of the input as it is commonly written: images decoded, cropped and distorted one by one.

    The operations are those of TF-Slim's Inception preprocessing, in its first order, and the paper's flips.
    """

    def window(encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.image.random_crop(tf.io.decode_jpeg(encoded, channels=3), [SIZE, SIZE, 3])
        image = tf.image.convert_image_dtype(image, tf.float32)
        image = tf.image.random_flip_left_right(tf.image.random_flip_up_down(image))
        image = tf.image.random_brightness(image, 32 / 255)
        image = tf.image.random_saturation(image, 0.5, 1.5)
        image = tf.image.random_hue(image, 0.2)
        image = tf.image.random_contrast(image, 0.5, 1.5)
        return tf.clip_by_value(image, 0.0, 1.0) * 2.0 - 1.0, label

    def parse(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(batch, training_input.FEATURES)
        return parsed["image/encoded"], parsed["image/class/label"]

    examples = tf.data.TFRecordDataset(list(records.files)).batch(BATCH).map(parse).unbatch()
    return examples.shuffle(SHUFFLE).map(window).batch(BATCH, drop_remainder=True).prefetch(2)


def bare_windows(encoded: list[bytes]) -> tf.data.Dataset:
    """Returns batches of random windows of images in memory, decoded one by one, and nothing else done to them.

    Batched, since taking each window out of tf.data by itself would be slower.
    """

    def window(jpeg: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        corner = tf.cast(tf.random.uniform([2]) * tf.cast(shape[:2] - SIZE + 1, tf.float32), tf.int32)
        return tf.io.decode_and_crop_jpeg(jpeg, tf.concat([corner, [SIZE, SIZE]], 0), channels=3)

    shapes = [tf.io.extract_jpeg_shape(jpeg) for jpeg in encoded]
    images = tf.data.Dataset.from_tensor_slices((encoded, shapes))
    return images.map(window).batch(BATCH, drop_remainder=True)


def both_rates(
    records: example_files.RecordIndex, images: list[Path], count: int, peer: str, share: tuple[float, float] | None
) -> tuple[float, float]:
    """Returns the rates of ours and of the peer on one core, each in a second pass over `count` images."""
    one_core()
    ours = training_windows(records, count, window_share=share)
    if peer == "decoding":
        theirs = bare_windows(list(repeated([path.read_bytes() for path in images], count)))
    else:
        theirs = reference_windows(records)
    return benchmarks.medians(ours, theirs, 1, warm_up=1, figure=rate, quiet=True)


def rate(dataset: tf.data.Dataset) -> float:
    """Returns images a second of processor time, first batch to last, without what an epoch's beginning and end cost.

    On one core that is the time that passes, less what other programs on the machine took of it. An epoch's beginning
    builds graphs, its end waits for tf.data's tuning thread: together about a second.
    """
    times = [time.process_time() for _ in dataset]
    return BATCH * (len(times) - 1) / (times[-1] - times[0])


def deliver(
    records: example_files.RecordIndex, count: int, number: int, processes: int, ready: Any, rates: Any
) -> None:
    """Puts the images a second that process `number` delivers into `rates`, on its share of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    own = max(len(cores) // processes, 1)
    os.sched_setaffinity(0, cores[number * own % len(cores) :][:own])
    batches = iter(training_windows(records, count, share=training_input.Share(number, processes)))
    next(batches)
    ready.wait()
    begun = time.perf_counter()
    images = sum(len(labels) for _, labels in batches)
    rates.put(images / (time.perf_counter() - begun))


def delivered(records: example_files.RecordIndex, count: int, processes: int, running: int) -> float:
    """Returns the images a second that the first `running` of so many processes deliver together."""
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(running), context.Queue()
    arguments = [(records, count, number, processes, ready, rates) for number in range(running)]
    workers = [context.Process(target=deliver, args=values) for values in arguments]
    for worker in workers:
        worker.start()
    total = sum(rates.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def pass_seconds(dataset: tf.data.Dataset, passes: int) -> float:
    """Reads `dataset` to its end `passes` times and returns the mean duration, since not every pass has to wait."""

    def read() -> None:
        for _ in range(passes):
            for _ in dataset:
                time.sleep(ELEMENT_SECONDS)

    return benchmarks.seconds(read) / passes


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    parser = benchmarks.parser(__doc__, rounds=5, images="folder of JPEGs, 599 pixels at least")
    parser.add_argument("--peer", choices=["tf.image", "decoding"], default="tf.image", help="(default tf.image)")
    parser.add_argument("--count", type=int, default=384, help="windows a pass, in batches of 32 (default 384)")
    parser.add_argument("--window-share", type=float, nargs=2, help="ours takes windows by share (default: native)")
    parser.add_argument("--processes", type=int, default=0, help="that read together, in place of one on one core")
    parser.add_argument("--end", action="store_true", help="measure the wait at the end of a dataset instead")
    parser.add_argument("--passes", type=int, default=12, help="of each side with --end (default 12)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long such a pass reads (default 2)")
    options = parser.parse_args(arguments)
    if options.end:
        passed = tf.data.Dataset.range(round(options.seconds / ELEMENT_SECONDS)).prefetch(2)
        ended = pass_seconds(preprocessing.without_autotuning(passed), options.passes)
        by_default = pass_seconds(passed, options.passes)
        benchmarks.report(ended, by_default, f"seconds a pass of {options.seconds:g} seconds")
        return
    encoded = [path.read_bytes() for path in options.images]
    with benchmarks.scratch() as folder:
        records, processes = write_images(encoded, options.count, folder), options.processes
        if processes:
            together, alone = benchmarks.medians(
                processes,
                1,
                options.rounds,
                figure=lambda running: delivered(records, options.count, processes, running),
            )
            benchmarks.report(together, alone * processes, f"images/s of {processes} processes")
            return
        shares = tuple(options.window_share) if options.window_share else None
        rates = []
        for number in range(options.rounds):
            # A process keeps its speed, which differs by a tenth and more between processes.
            with benchmarks.own_process(recipe.TENSORFLOW_DEFAULTS) as process:
                rates.append(process(both_rates, records, options.images, options.count, options.peer, shares))
            benchmarks.note("process {}: ours {:.1f}, peer {:.1f}".format(number + 1, *rates[-1]))
    own, other = (statistics.median(side) for side in zip(*rates, strict=True))
    benchmarks.report(own, other, "images/s on one core")


if __name__ == "__main__":
    main()
