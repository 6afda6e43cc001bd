"""The temperature of a trained network, fitted on the examples that it was evaluated on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from marco_data.progress import progress
from marco_model import training_input
from marco_model.calibration import expected_calibration_error, fit_temperature
from marco_model.export import logits_only
from marco_model.folding import fold

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was fitted, and the expected calibration error (0 to 1) before and after on the same examples."""

    temperature: float
    error_before: float
    error_after: float


def calibrate(
    model: keras.Model, files: Sequence[str], *, images: int, input_size: int, batch_size: int
) -> Calibration:
    """Fits the temperature of `model` on all `images` examples of `files`, gzip TFRecords as training evaluates them.

    `model`: from float32 [batch, input_size, input_size, 3] in [-1, 1] to logits, with or without auxiliary head. It is
    run as it is exported, batch norms folded and in float32, by this process alone, whatever engine trained it.
    """
    logits, labels = evaluated(model, files, images=images, input_size=input_size, batch_size=batch_size)
    temperature = fit_temperature(logits, labels)
    before, after = (
        expected_calibration_error(softmax(logits / divisor, axis=1), labels) for divisor in (1.0, temperature)
    )
    log.info("Temperature %.3f: expected calibration error %.4f, %.4f without", temperature, after, before)
    return Calibration(temperature, before, after)


def evaluated(
    model: keras.Model, files: Sequence[str], *, images: int, input_size: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits, float32 [images, classes], and labels, int64 [images], of all examples in a fixed order."""
    network = fold(logits_only(model))

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        return network(pixels, training=False)

    batches = training_input.evaluation_batches(list(files), images=images, size=input_size, batch_size=batch_size)
    logits, labels = [], []
    with progress("Calibrating", images) as advance:
        for pixels, told in batches:
            real = told.numpy() != training_input.PADDING
            logits.append(forward(pixels).numpy()[real])
            labels.append(told.numpy()[real])
            advance(int(real.sum()))
    return np.concatenate(logits), np.concatenate(labels)
