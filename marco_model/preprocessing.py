"""How an encoded image becomes the network's input, defined once for training, evaluation and the served model.

The evaluation path is the published graph's, read from its `saved_model.pb`: `DecodeJpeg` to three channels, centre
crop to the shorter side, `ResizeBilinear` with `align_corners=False` and without half-pixel centres, then to [-1, 1].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from marco_model import pixels as limits

_RECORDS = 64
"""Records that `parsed_records` parses at a time."""
JPEG_REDUCTIONS = (2, 4, 8)
"""Factors by which the JPEG decoder reduces an image while it decodes it."""


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a scalar string, JPEG or PNG, to uint8 [height, width, 3]; 16-bit samples keep their upper byte.

    The kernel of `decode_jpeg` recognizes PNG by its first bytes.
    """
    return tf.io.decode_jpeg(encoded, channels=3)


def within_limits(encoded: tf.Tensor) -> tf.Tensor:
    """Returns a scalar string unchanged; fails with InvalidArgument for what would cost too much to decode.

    The limits are those of `pixels`, which a served graph otherwise lacks. Also fails for anything but a JPEG or PNG:
    the kernel of `decode_jpeg` reads GIF and BMP too.
    """
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
    is_png = tf.equal(tf.strings.substr(encoded, 0, 16), b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR")
    formats = tf.debugging.Assert(
        (is_jpeg | is_png) & (tf.strings.length(encoded) <= limits.MAX_BYTES),
        [
            f"an image is neither a JPEG nor a PNG, or has more than {limits.MAX_BYTES} bytes:",
            tf.strings.length(encoded),
        ],
    )

    def jpeg_work() -> tf.Tensor:
        sides = tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64)
        content = tf.io.decode_raw(encoded, tf.uint8)
        scans = tf.math.count_nonzero((content[:-1] == 0xFF) & (content[1:] == 0xDA))
        return tf.stack([sides[0] * sides[1], scans])

    def png_work() -> tf.Tensor:
        sides = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
        return tf.stack([tf.reduce_prod(tf.cast(sides, tf.int64)), 1])

    with tf.control_dependencies([formats]):
        work = tf.cond(is_jpeg, jpeg_work, png_work)
    few_pixels = tf.debugging.Assert(
        work[0] <= limits.MAX_PIXELS, [f"an image has more than {limits.MAX_PIXELS} pixels:", work[0]]
    )
    few_scans = tf.debugging.Assert(
        (work[1] <= limits.MAX_SCANS) & (work[0] * work[1] <= limits.MAX_SCANNED),
        ["a JPEG has too many scans for its size:", work[1]],
    )
    with tf.control_dependencies([few_pixels, few_scans]):
        return tf.identity(encoded)


def centre_square(image: tf.Tensor) -> tf.Tensor:
    """Crops [height, width, 3] to the shorter side, an odd pixel left over going to the bottom or right."""
    shape = tf.shape(image)
    side = tf.minimum(shape[0], shape[1])
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def resize(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Resizes uint8 [h, w, 3] as TensorFlow 1 did by default; returns float32 in [0, 255]."""
    resized = tf.raw_ops.ResizeBilinear(
        images=image[None], size=[height, width], align_corners=False, half_pixel_centers=False
    )
    return resized[0]


def to_network_range(pixels: tf.Tensor) -> tf.Tensor:
    """Maps [0, 255] to float32 in [-1, 1]."""
    return (tf.cast(pixels, tf.float32) * (1.0 / 255.0) - 0.5) * 2.0


def evaluation_image(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a scalar string to the network's input: float32 [size, size, 3] in [-1, 1].

    The published graph scales to [0, 1] before it resizes; resizing is linear, so that resizing the bytes gives the
    same numbers to within float32 rounding, without a float copy of the whole image.
    """
    return tf.ensure_shape(to_network_range(resize(centre_square(decode(encoded)), size, size)), [size, size, 3])


def evaluation_batch(
    encoded: tf.Tensor, size: int, preprocess: Callable[[tf.Tensor], tf.Tensor] | None = None
) -> tf.Tensor:
    """`evaluation_image` of a string [batch]: float32 [batch, size, size, 3], images decoded in parallel.

    `preprocess`, if any, is applied to each encoded image before. Fails for an image beyond the limits of `pixels`.
    """

    def prepare(image: tf.Tensor) -> tf.Tensor:
        image = within_limits(image)
        return evaluation_image(preprocess(image) if preprocess else image, size)

    spec = tf.TensorSpec([size, size, 3], tf.float32)
    return tf.map_fn(prepare, encoded, fn_output_signature=spec, parallel_iterations=16)


def views(images: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Returns the first `count` symmetries of float32 [batch, size, size, channels], as `onnx_network.views` does."""
    mirrored = [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]
    return [*mirrored, *(tf.transpose(view, [0, 2, 1, 3]) for view in mirrored)][:count]


def shrink(encoded: tf.Tensor, shorter_side: int, quality: int = 95) -> tf.Tensor:
    """Re-encodes a scalar string as a JPEG whose shorter side is `shorter_side`; smaller images are returned unchanged.

    Pixels are averaged over the area they come from, so that no detail becomes noise; `quality` is JPEG's, 1 to 100.
    """
    image = decode(encoded)
    shape = tf.shape(image)

    def smaller() -> tf.Tensor:
        sides = tf.cast(shape[:2], tf.float64)
        scaled = tf.round(sides * (tf.cast(shorter_side, tf.float64) / tf.reduce_min(sides)))
        pixels = tf.image.resize(image, tf.cast(scaled, tf.int32), method="area")
        return tf.io.encode_jpeg(tf.cast(tf.round(pixels), tf.uint8), quality=quality, chroma_downsampling=False)

    return tf.cond(tf.reduce_min(shape[:2]) > shorter_side, smaller, lambda: encoded)


def random_window(
    encoded: tf.Tensor, size: int, seed: tf.Tensor, share: tuple[float, float] | None = None
) -> tf.Tensor:
    """Returns a random window of an image for training: uint8 [size, size, 3]; the int [2] `seed` decides it.

    Without `share` the window is native: `size` pixels of the image as they are. With `share` its side is drawn
    uniformly between these two shares of the image's shorter side and scaled to `size` by the evaluation path's rule,
    whose own image has the share 1. A window larger than 2, 4 or 8 times `size` is reduced by that factor first, a
    JPEG by its decoder; place and side are then multiples of the factor.

    Of a JPEG, only the window is decoded. If the shorter side is below `size`, a native window is a square of that
    side, scaled up to `size`, as the evaluation path does with the square in the middle.
    """
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
    shape = tf.cond(
        is_jpeg, lambda: tf.io.extract_jpeg_shape(encoded), lambda: tf.shape(decode(encoded), out_type=tf.int32)
    )
    shorter = tf.reduce_min(shape[:2])
    draws = tf.random.stateless_uniform([3 if share else 2], seed, 0, 1)
    if share:
        smallest, largest = share
        scaled = (smallest + (largest - smallest) * draws[2]) * tf.cast(shorter, tf.float32)
        side = tf.clip_by_value(tf.cast(tf.round(scaled), tf.int32), 1, shorter)
    else:
        side = tf.minimum(shorter, size)
    room = shape[:2] - side + 1
    corner = tf.minimum(tf.cast(draws[:2] * tf.cast(room, tf.float32), tf.int32), room - 1)
    # Whole where the window is small: a JPEG's window is decoded from fewer neighbours at its rim.
    is_partial = is_jpeg & (side >= size)
    if share:
        window = _scaled(_reduced_square(encoded, is_partial, corner, side, size), size)
    else:
        window = tf.cond(
            is_partial,
            lambda: _jpeg_square(encoded, corner, side),
            lambda: _scaled(_square(decode(encoded), corner, side), size),
        )
    return tf.ensure_shape(window, [size, size, 3])


def _reduced_square(
    encoded: tf.Tensor, is_partial: tf.Tensor, corner: tf.Tensor, side: tf.Tensor, size: int
) -> tf.Tensor:
    """Returns the square of an image, uint8, reduced by the largest factor that leaves it at least `size`."""
    factors = [1, *JPEG_REDUCTIONS]
    reduction = tf.reduce_sum(tf.cast(side >= size * tf.constant(JPEG_REDUCTIONS), tf.int32))
    factor = tf.gather(factors, reduction)
    corner, side = corner // factor, side // factor

    def partial() -> tf.Tensor:
        reduced = [lambda ratio=ratio: _jpeg_square(encoded, corner, side, ratio) for ratio in factors]
        return tf.switch_case(reduction, reduced)

    def whole() -> tf.Tensor:
        square = _square(decode(encoded), corner * factor, side * factor)
        return tf.cond(
            factor > 1,
            lambda: _rounded(tf.raw_ops.ResizeArea(images=square[None], size=[side, side])[0]),
            lambda: tf.identity(square),
        )

    return tf.cond(is_partial, partial, whole)


def _jpeg_square(encoded: tf.Tensor, corner: tf.Tensor, side: tf.Tensor, ratio: int = 1) -> tf.Tensor:
    """Decodes a square of a JPEG alone, uint8 [side, side, 3]; corner and side are those of the image reduced."""
    return tf.io.decode_and_crop_jpeg(encoded, tf.concat([corner, [side, side]], 0), channels=3, ratio=ratio)


def _square(image: tf.Tensor, corner: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, tf.concat([corner, [0]], 0), tf.stack([side, side, 3]))


def _scaled(square: tf.Tensor, size: int) -> tf.Tensor:
    """Returns a uint8 square scaled to `size` as the evaluation path does; unchanged where it has that size."""
    return tf.cond(
        tf.equal(tf.shape(square)[0], size), lambda: tf.identity(square), lambda: _rounded(resize(square, size, size))
    )


def _rounded(pixels: tf.Tensor) -> tf.Tensor:
    """Returns float32 pixels in [0, 255] as uint8."""
    return tf.cast(tf.round(pixels), tf.uint8)


def parsed_records(files: Sequence[str], features: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Yields `features`, as `tf.io.parse_example` takes them, of batches of the records of TFRecord files, in order."""
    batches = tf.data.TFRecordDataset(list(files)).batch(_RECORDS)
    batches = batches.map(lambda records: tf.io.parse_example(records, features)).prefetch(1)
    yield from without_autotuning(batches).as_numpy_iterator()


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `dataset` without tf.data's autotuning; put it last.

    About every second time, the end of an iterator of an autotuned dataset waits idle for the next turn of the tuning
    thread: as long as the iterator has existed, at most a minute (TensorFlow 2.16 and 2.21; `python -m
    benchmarks.input --end`). Without autotuning `tf.data.AUTOTUNE` means as many parallel calls as there are cores, at
    most 16: give `pixels.cores()` where more are useful.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
