"""Batch norm that trains with TensorFlow's fused kernel: Keras 3's own takes a dozen passes over the activations."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("marco")
class BatchNormalization(layers.BatchNormalization):
    """Keras's layer, to the name and the number, for [batch, height, width, channels].

    It is Keras's own code that runs in inference, on other backends than TensorFlow, where moments are taken over all
    replicas (`synchronized`), and with a mask.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises `inputs`, by their own moments if `training` and the layer is trainable."""
        plain = self.synchronized or mask is not None or len(inputs.shape) != 4 or self.axis not in (-1, 3)
        if plain or not (training and self.trainable) or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = [inputs.shape[-1]]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale=ops.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels),
            offset=ops.convert_to_tensor(self.beta) if self.center else tf.zeros(channels),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel gives the variance of a sample, n / (n - 1) times that of the batch, which Keras averages.
        count = tf.cast(tf.size(inputs) // channels[0], tf.float32)
        variance *= (count - 1.0) / count
        for moving, moment in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + moment * (1.0 - self.momentum))
        return outputs


def batch_norms(model: keras.Model) -> list[layers.BatchNormalization]:
    """Returns all batch norms of a model, those of models within it too."""
    found: list[layers.BatchNormalization] = []
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            found.append(layer)
        elif hasattr(layer, "layers"):
            found += batch_norms(layer)
    return found
