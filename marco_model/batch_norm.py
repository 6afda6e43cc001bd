"""Batch norm: a layer that trains with TensorFlow's fused kernel, and `fold`, which removes it for inference.

Keras 3's own layer takes a dozen passes over the activations.
"""

from typing import Any

import keras
import numpy as np


@keras.saving.register_keras_serializable("marco")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with the same names and numbers, for [batch, height, width, channels].

    Keras's own code runs in inference, on other backends than TensorFlow, with moments over all replicas
    (`synchronized`), and with a mask.
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
            scale=keras.ops.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels),
            offset=keras.ops.convert_to_tensor(self.beta) if self.center else tf.zeros(channels),
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel returns the variance of a sample, n / (n - 1) times that of the batch, which Keras averages.
        count = tf.cast(tf.size(inputs) // channels[0], tf.float32)
        variance *= (count - 1.0) / count
        for moving, moment in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + moment * (1.0 - self.momentum))
        return outputs


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Returns all batch norms of a model, those of models within it included."""
    norms: list[keras.layers.BatchNormalization] = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            norms.append(layer)
        elif hasattr(layer, "layers"):
            norms += batch_norms(layer)
    return norms


class _Folded(keras.layers.Layer):
    """Takes the place of a batch norm and accepts the arguments of its call."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return inputs


def _followers(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """Maps a convolution's name to the batch norm that is the only consumer of its output."""
    consumed = [layer.input for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    consumers = [_source(tensor).name for tensor in keras.tree.flatten([consumed, model.output])]
    pairs = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            source = _source(layer.input)
            linear = isinstance(source, keras.layers.Conv2D) and source.activation is keras.activations.linear
            if linear and consumers.count(source.name) == 1:
                pairs[source.name] = layer
    return pairs


def _source(tensor: Any) -> keras.layers.Layer:
    return tensor._keras_history.operation


def fold(model: keras.Model) -> keras.Model:
    """Returns a float32 copy for inference whose convolutions include their batch norms.

    With the moving mean m and variance v, and the scale s = gamma / sqrt(v + epsilon) of an output channel:
    s * (k * x - m) + beta = (s k) * x + (beta - s m).
    """
    norms = _followers(model)
    folded_norms = {norm.name for norm in norms.values()}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in folded_norms:
            return _Folded(name=layer.name, dtype="float32")
        if layer.name in norms:
            return keras.layers.Conv2D.from_config({**layer.get_config(), "use_bias": True, "dtype": "float32"})
        return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})

    folded = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        if layer.name in norms:
            folded.get_layer(layer.name).set_weights(_folded_weights(layer, norms[layer.name]))
        elif layer.weights and layer.name not in folded_norms:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


def _folded_weights(conv: keras.layers.Conv2D, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    mean, variance = (np.asarray(weight, np.float64) for weight in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else 1.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    bias = np.asarray(norm.beta, np.float64) - scale * mean
    if conv.use_bias:
        bias = bias + scale * np.asarray(conv.bias, np.float64)
    return [(np.asarray(conv.kernel, np.float64) * scale).astype(np.float32), bias.astype(np.float32)]
