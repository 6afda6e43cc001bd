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


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None, None]


def adjust_saturation(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales the HSV saturation of float [batch, h, w, 3] by [batch] factors, as `tf.image.adjust_saturation` does.

    With hue and value kept, each channel's distance from the largest scales with the saturation, so that no conversion
    to HSV is needed. Saturation is capped at 1.
    """
    value = tf.reduce_max(images, axis=-1, keepdims=True)
    spread = value - tf.reduce_min(images, axis=-1, keepdims=True)
    capped = tf.minimum(_per_image(factors), tf.math.divide_no_nan(value, spread))
    ratio = tf.where(value > 0, tf.where(spread > 0, capped, 0.0), 0.0)
    return value - (value - images) * ratio


def adjust_hue(images: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Turns the hue of float [batch, h, w, 3] by [batch] whole circles, as `tf.image.adjust_hue` does."""
    red, green, blue = tf.unstack(images, axis=-1)
    high = tf.reduce_max(images, axis=-1)
    low = tf.reduce_min(images, axis=-1)
    spread = high - low
    sixth = tf.where(
        high == red,
        tf.math.divide_no_nan(green - blue, spread),
        tf.where(
            high == green,
            2.0 + tf.math.divide_no_nan(blue - red, spread),
            4.0 + tf.math.divide_no_nan(red - green, spread),
        ),
    )
    hue = (sixth + 6.0 * turns[:, None, None])[..., None]
    distance = tf.abs(tf.math.floormod(hue - tf.constant([3.0, 5.0, 1.0]), 6.0) - 3.0)
    return low[..., None] + spread[..., None] * tf.clip_by_value(2.0 - distance, 0.0, 1.0)


def adjust_contrast(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales the distance of float [batch, h, w, 3] from each channel's mean by [batch] factors."""
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    return (images - mean) * _per_image(factors) + mean


def distort(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Distorts uint8 [batch, h, w, 3] windows by `draws`; returns float32 in [-1, 1], the network's input."""
    floats = tf.cast(images, tf.float32) * (1.0 / 255.0)
    floats = tf.where(_per_image(draws.left_right), tf.reverse(floats, [2]), floats)
    floats = tf.where(_per_image(draws.up_down), tf.reverse(floats, [1]), floats)
    floats = floats + _per_image(draws.brightness)
    floats = adjust_saturation(floats, draws.saturation)
    floats = adjust_hue(floats, draws.hue)
    floats = adjust_contrast(floats, draws.contrast)
    return (tf.clip_by_value(floats, 0.0, 1.0) - 0.5) * 2.0
