"""The paper's image distortions, batched, for the accelerator.

Bruno et al. 2018 distort brightness, saturation, hue and contrast "as in TF-Slim's Inception preprocessing" and flip
both ways. The host sends uint8 windows; here each image of the batch gets its own draw, from a seed alone, so that a
step can be replayed.

Besides the four amounts, TF-Slim's `inception_preprocessing.py` draws one of four orders of the operations for each
image (`distort_color` with `fast_mode=False`; `fast_mode` would leave out hue and contrast, which the paper has):

| order | first | second | third | fourth | slots here |
|---|---|---|---|---|---|
| 0 | brightness | saturation | hue | contrast | L K L |
| 1 | saturation | brightness | contrast | hue | K L K |
| 2 | contrast | hue | brightness | saturation | L K L K |
| 3 | hue | saturation | contrast | brightness | K L |

Brightness, a shift, and contrast, a scaling about the mean, commute; so do saturation and hue, which both keep the
largest channel. Hence one pass L does either or both of the first pair, one pass K either or both of the second, and
the passes L K L K do every order; a pass leaves the images alone whose order does not need it. So all images go through
the same operations on static shapes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

BRIGHTNESS = 32.0 / 255.0
SATURATION = (0.5, 1.5)
HUE = 0.2
CONTRAST = (0.5, 1.5)
ORDERS = 4


class Draws(NamedTuple):
    """One random draw for each image of a batch; every field has shape [batch].

    `brightness`: added, in ±32/255. `saturation`, `contrast`: factors in [0.5, 1.5). `hue`: turn in ±0.2.
    `left_right`, `up_down`: bool. `order`: int32, 0 to 3, of the operations.
    """

    brightness: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor
    contrast: tf.Tensor
    left_right: tf.Tensor
    up_down: tf.Tensor
    order: tf.Tensor


def draw(seed: tf.Tensor, batch: tf.Tensor | int, strength: float = 1.0) -> Draws:
    """Returns the draws for `batch` images from an int [2] seed; outside of XLA, a seed always gives the same draws.

    `strength`: times the ranges of the four amounts, above; no factor is below 0, and the hue turns by a half at most.
    """
    hue = min(strength * HUE, 0.5)
    seeds = tf.unstack(tf.random.split(seed, len(Draws._fields)))

    def uniform(index: int, low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform([batch], seeds[index], low, high)

    return Draws(
        brightness=uniform(0, -strength * BRIGHTNESS, strength * BRIGHTNESS),
        saturation=uniform(1, *_widened(SATURATION, strength)),
        hue=uniform(2, -hue, hue),
        contrast=uniform(3, *_widened(CONTRAST, strength)),
        left_right=uniform(4, 0.0, 1.0) < 0.5,
        up_down=uniform(5, 0.0, 1.0) < 0.5,
        order=tf.random.stateless_uniform([batch], seeds[6], 0, ORDERS, tf.int32),
    )


def _widened(factors: tuple[float, float], strength: float) -> tuple[float, float]:
    """Returns a range of factors `strength` times as far from 1, but not below 0."""
    low, high = (1.0 + strength * (factor - 1.0) for factor in factors)
    return max(low, 0.0), high


Planes = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Red, green and blue of a batch, float32 [batch, h, w] each.

Three channels in the last dimension would prevent vector instructions: on planes `distort` takes about a fifth of the
time on a CPU.
"""


def adjust_brightness_and_contrast(planes: Planes, shifts: tf.Tensor, factors: tf.Tensor) -> Planes:
    """Adds [batch] shifts and scales the distance from each channel's mean by [batch] factors.

    The same as `tf.image.adjust_brightness` and `adjust_contrast`, in either order; 0 and 1 leave an image as it is.
    """

    shifts, factors = shifts[:, None, None], factors[:, None, None]

    def adjust(plane: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_mean(plane, axis=(1, 2), keepdims=True)
        return plane * factors + (mean * (1.0 - factors) + shifts)

    red, green, blue = planes
    return adjust(red), adjust(green), adjust(blue)


def adjust_saturation_and_hue(planes: Planes, saturates: tf.Tensor, factors: tf.Tensor, turns: tf.Tensor) -> Planes:
    """Scales HSV saturation by [batch] factors where bool [batch] `saturates`, and turns the hue by [batch] circles.

    The same as `tf.image.adjust_saturation` and `adjust_hue`, in either order. Saturation is limited to 1, so where it
    is scaled, even by 1, no channel stays below 0; turning only the hue, even by 0, keeps such values.
    """
    saturates, factors, turns = (values[:, None, None] for values in (saturates, factors, turns))
    red, green, blue = planes
    high = tf.maximum(red, tf.maximum(green, blue))
    spread = high - tf.minimum(red, tf.minimum(green, blue))
    inverse = tf.math.divide_no_nan(1.0, spread)
    sixth = tf.where(
        tf.equal(high, red),
        (green - blue) * inverse,
        tf.where(tf.equal(high, green), 2.0 + (blue - red) * inverse, 4.0 + (red - green) * inverse),
    )
    scale = tf.minimum(factors, tf.maximum(high, 0.0) * inverse)
    spread *= tf.where(saturates, scale, 1.0)
    low = high - spread
    hue = sixth + 6.0 * turns
    hue -= 6.0 * tf.floor(hue * (1.0 / 6.0))
    return (
        low + spread * tf.clip_by_value(tf.abs(hue - 3.0) - 1.0, 0.0, 1.0),
        low + spread * tf.clip_by_value(2.0 - tf.abs(hue - 2.0), 0.0, 1.0),
        low + spread * tf.clip_by_value(2.0 - tf.abs(hue - 4.0), 0.0, 1.0),
    )


def _distort_colours(planes: Planes, draws: Draws) -> Planes:
    """Applies the four operations in each image's order, in the passes of the table at the top of this file."""

    def in_orders(*orders: int) -> tf.Tensor:
        return tf.reduce_any(tf.equal(draws.order[:, None], orders), axis=1)

    def light(planes: Planes, brightness: tf.Tensor, contrast: tf.Tensor) -> Planes:
        shifts, factors = tf.where(brightness, draws.brightness, 0.0), tf.where(contrast, draws.contrast, 1.0)
        return adjust_brightness_and_contrast(planes, shifts, factors)

    def colour(planes: Planes, saturation: tf.Tensor, hue: tf.Tensor) -> Planes:
        return adjust_saturation_and_hue(planes, saturation, draws.saturation, tf.where(hue, draws.hue, 0.0))

    planes = light(planes, brightness=in_orders(0), contrast=in_orders(2))
    planes = colour(planes, saturation=in_orders(0, 1, 3), hue=in_orders(0, 2, 3))
    planes = light(planes, brightness=in_orders(1, 2, 3), contrast=in_orders(0, 1, 3))
    return colour(planes, saturation=in_orders(2), hue=in_orders(1))


def _distort_planes(images: tf.Tensor, draws: Draws) -> Planes:
    images = tf.where(draws.left_right[:, None, None, None], tf.reverse(images, [2]), images)
    images = tf.where(draws.up_down[:, None, None, None], tf.reverse(images, [1]), images)
    red, green, blue = (tf.cast(plane, tf.float32) * (1.0 / 255.0) for plane in tf.unstack(images, axis=-1))
    planes = _distort_colours((red, green, blue), draws)
    red, green, blue = (tf.clip_by_value(plane, 0.0, 1.0) * 2.0 - 1.0 for plane in planes)
    return red, green, blue


def distort(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Distorts uint8 [batch, h, w, 3] windows by `draws`; returns float32 in [-1, 1], the network's input."""
    return tf.stack(_distort_planes(images, draws), axis=-1)


@functools.cache
def compiled_distort() -> Callable[[tf.Tensor, Draws], tf.Tensor]:
    """Returns `distort` for a processor, compiled, the same for all trainings of this process.

    It passes over the images a few times in place of some hundred, which takes a third of the time; results differ by
    rounding. The planes are joined outside of the program, since XLA does that slowly on a processor.
    """
    planes = tf.function(_distort_planes, jit_compile=True, autograph=False)
    return lambda images, draws: tf.stack(planes(images, draws), axis=-1)
