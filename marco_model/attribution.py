"""Which pixels a class score depends on: SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825).

The gradient of a class's score with respect to the image says which pixels would change it, but flickers from pixel to
pixel. SmoothGrad averages it over copies of the image with Gaussian noise. Bruno et al. 2018 show it in Fig. 4.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from marco_model.errors import InputError

Gradient = Callable[[np.ndarray, int], np.ndarray]

SAMPLES = 50
"""Noisy copies of an image; the paper sees little gain with more (its section 3.1)."""
NOISE = 0.1
"""Standard deviation of the noise as a share of the image's range. The paper recommends 0.1 to 0.2; with more than 0.1
thin needles disappear."""
BATCH_SIZE = 4
COLOURS = "inferno"
CLIPPED = 99.0
"""Percentile of an attribution above which all values are drawn alike, as Smilkov et al. 2017 (section 3.2) advise."""


def class_gradient(logits: Callable[[tf.Tensor], tf.Tensor]) -> Gradient:
    """Returns the function (images, class index) -> d logits[:, class] / d images, both float32 [n, size, size, 3].

    `logits` maps float32 [n, size, size, 3] to [n, classes]. The paper's class score is the logit: softmax would mix in
    the other classes, and flatten where the network is sure.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def gradient(images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(images)
            score = logits(images)[:, index]
        return tape.gradient(score, images)

    return lambda images, index: gradient(tf.constant(images), tf.constant(index)).numpy()


def smoothgrad(
    gradient: Gradient,
    image: np.ndarray,
    index: int,
    *,
    samples: int = SAMPLES,
    noise: float = NOISE,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> np.ndarray:
    """Returns how strongly each pixel moves the score of class `index`: float32 [size, size], 0 or more.

    image: float32 [size, size, 3]. noise: standard deviation as a share of the image's own range, its highest less its
    lowest value. The gradients of `samples` noisy copies, `batch_size` at a time, are averaged; then their absolute
    values are summed over the three channels, as the authors' code does for grey maps (`VisualizeImageGrayscale` in
    PAIR-code/saliency). `seed` decides the noise, whatever the batch size.

    Raises `InputError` for fewer than one sample or image per batch, or noise that is negative or not finite.
    """
    if samples < 1 or batch_size < 1:
        raise InputError(f"{samples} samples in batches of {batch_size}; give 1 or more of both")
    if not 0 <= noise < np.inf:
        raise InputError(f"noise is {noise}; give a share of the image's range, such as {NOISE}")
    rng = np.random.default_rng(seed)
    deviation = np.float32(noise * float(np.ptp(image)))
    total = np.zeros(image.shape, np.float64)
    for first in range(0, samples, batch_size):
        shape = (min(batch_size, samples - first), *image.shape)
        noisy = image + deviation * rng.standard_normal(shape, dtype=np.float32)
        total += gradient(noisy, index).sum(axis=0, dtype=np.float64)
    return (np.abs(total).sum(axis=-1) / samples).astype(np.float32)


def overlay(image: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Draws an attribution over its image: uint8 [size, size, 3] RGB.

    image: float32 [size, size, 3] in [-1, 1]. attribution: float32 [size, size], 0 or more. Where it is 0, the grey
    image shows; where it is highest, only the colour map.
    """
    import matplotlib

    grey = np.clip((image.mean(axis=-1, keepdims=True) + 1) / 2, 0, 1)
    highest = np.percentile(attribution, CLIPPED) or attribution.max() or 1.0
    heat = np.clip(attribution / highest, 0, 1)
    colours = matplotlib.colormaps[COLOURS](heat)[..., :3]
    blended = grey + heat[..., None] * (colours - grey)
    return np.round(255 * blended).astype(np.uint8)
