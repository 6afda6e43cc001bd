"""The paper's image distortions, batched, for the accelerator.

Bruno et al. 2018 distort brightness, saturation, hue and contrast "as in TF-Slim's Inception preprocessing" and flip
both ways. The host sends uint8 windows; here every image of the batch gets its own draw, from a seed alone, so that a
step can be replayed. Order of the operations: TF-Slim's first (`color_ordering == 0`); TF-Slim varies it by input
thread, and the paper does not say how many threads it had.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

BRIGHTNESS = 32.0 / 255.0
SATURATION = (0.5, 1.5)
HUE = 0.2
CONTRAST = (0.5, 1.5)


class Draws(NamedTuple):
    """One random draw for each image of a batch; every member has shape [batch].

    `brightness`: added, in ±32/255. `saturation`, `contrast`: factors in [0.5, 1.5). `hue`: turn in ±0.2.
    `left_right`, `up_down`: bool.
    """

    brightness: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor
    contrast: tf.Tensor
    left_right: tf.Tensor
    up_down: tf.Tensor


def draw(seed: tf.Tensor, batch: tf.Tensor | int) -> Draws:
    """Returns the draws for `batch` images from an int [2] seed: the same seed, the same draws."""
    seeds = tf.unstack(tf.random.split(seed, 6))

    def uniform(index: int, low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform([batch], seeds[index], low, high)

    return Draws(
        brightness=uniform(0, -BRIGHTNESS, BRIGHTNESS),
        saturation=uniform(1, *SATURATION),
        hue=uniform(2, -HUE, HUE),
        contrast=uniform(3, *CONTRAST),
        left_right=uniform(4, 0.0, 1.0) < 0.5,
        up_down=uniform(5, 0.0, 1.0) < 0.5,
    )


Planes = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Red, green and blue of a batch, float32 [batch, h, w] each.

Three channels in the last place would keep the operations from the processor's vectors: on planes `distort` takes
about a fifth of the time on a CPU.
"""


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None]


def adjust_saturation_and_hue(planes: Planes, factors: tf.Tensor, turns: tf.Tensor) -> Planes:
    """Scales HSV saturation by [batch] factors, capped at 1, then turns the hue by [batch] whole circles.

    The same as `tf.image.adjust_saturation` and then `adjust_hue`. In HSV both leave the largest channel as it is, and
    scaling saturation leaves the hue, so that one pass does both.
    """
    red, green, blue = planes
    high = tf.maximum(red, tf.maximum(green, blue))
    spread = high - tf.minimum(red, tf.minimum(green, blue))
    coloured = tf.logical_and(high > 0, spread > 0)
    inverse = tf.where(coloured, 1.0 / spread, 0.0)
    sixth = tf.where(
        tf.equal(high, red),
        (green - blue) * inverse,
        tf.where(tf.equal(high, green), 2.0 + (blue - red) * inverse, 4.0 + (red - green) * inverse),
    )
    spread *= tf.minimum(_per_image(factors), high * inverse)
    low = high - spread
    hue = sixth + 6.0 * _per_image(turns)
    hue -= 6.0 * tf.floor(hue * (1.0 / 6.0))
    return (
        low + spread * tf.clip_by_value(tf.abs(hue - 3.0) - 1.0, 0.0, 1.0),
        low + spread * tf.clip_by_value(2.0 - tf.abs(hue - 2.0), 0.0, 1.0),
        low + spread * tf.clip_by_value(2.0 - tf.abs(hue - 4.0), 0.0, 1.0),
    )


def adjust_contrast(planes: Planes, factors: tf.Tensor) -> Planes:
    """Scales the distance from each channel's mean by [batch] factors."""

    def adjust(plane: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_mean(plane, axis=(1, 2), keepdims=True)
        return plane * _per_image(factors) + mean * (1.0 - _per_image(factors))

    red, green, blue = planes
    return adjust(red), adjust(green), adjust(blue)


def distort(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Distorts uint8 [batch, h, w, 3] windows by `draws`; returns float32 in [-1, 1], the network's input."""
    images = tf.where(draws.left_right[:, None, None, None], tf.reverse(images, [2]), images)
    images = tf.where(draws.up_down[:, None, None, None], tf.reverse(images, [1]), images)
    brightness = _per_image(draws.brightness)
    red, green, blue = (
        tf.cast(plane, tf.float32) * (1.0 / 255.0) + brightness for plane in tf.unstack(images, axis=-1)
    )
    planes = adjust_saturation_and_hue((red, green, blue), draws.saturation, draws.hue)
    planes = adjust_contrast(planes, draws.contrast)
    return tf.stack([tf.clip_by_value(plane, 0.0, 1.0) * 2.0 - 1.0 for plane in planes], axis=-1)
