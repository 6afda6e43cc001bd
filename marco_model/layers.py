"""Layers beside Keras's: batch norm on TensorFlow's fused kernel, and heads for raw labels and for sources.

Keras 3's own batch norm takes a dozen passes over the activations; `fold` removes it for inference.

The heads stand on the features that the head of the classes takes. The raw head is part of the network and is exported
with it. The source head is only trained with: what is below it learns to deceive it, since its gradient is reversed
(Ganin and Lempitsky 2015; Ganin et al. 2016, JMLR 17:59).
"""

from typing import Any

import keras
import numpy as np

from marco_model import errors


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


LOGITS, RAW_LOGITS, SOURCE_LOGITS, FEATURES = "logits", "raw_logits", "source_logits", "features"
"""The names of the network's outputs, where it has more than one; `source_logits` are of the source head."""

RAW_LAYER = "RawLogits"
"""The name of the raw head's only layer."""

WIDTH = 1024
"""Units of each of the source head's two hidden layers, as published for large networks."""


def by_name(outputs: Any) -> dict[str, Any]:
    """Returns what a network returns, symbolic or computed, by name: `logits` if it is one tensor."""
    return outputs if isinstance(outputs, dict) else {LOGITS: outputs}


def pooled(network: keras.Model) -> Any:
    """Returns the features that the head of the classes stands on, symbolic: [batch, features].

    They are the output of the last global average pooling before it. Raises `InputError` without one.
    """
    trunk = keras.Model(network.inputs, by_name(network.output)[LOGITS])
    pools = [layer for layer in trunk.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
    if not pools:
        raise errors.InputError(
            f"network {network.name} has no GlobalAveragePooling2D, whose output its features would be"
        )
    return pools[-1].output


def with_raw_head(network: keras.Model, raw_labels: int, seed: int) -> keras.Model:
    """Returns the network, with the same variables, with a further output `raw_logits`: float32 [batch, raw_labels].

    The head is one linear layer, as that of the classes is.
    """
    features = pooled(network)
    features = keras.layers.Reshape((features.shape[-1],), name="raw_logits-features")(features)
    initializer = keras.initializers.GlorotUniform(seed)
    layer = keras.layers.Dense(raw_labels, kernel_initializer=initializer, dtype="float32", name=RAW_LAYER)
    return keras.Model(network.inputs, {**by_name(network.output), RAW_LOGITS: layer(features)}, name=network.name)


def with_source_head(network: keras.Model, sources: int, seed: int) -> tuple[keras.Model, keras.Model]:
    """Returns the network, with the same variables and a further output `features`, and the head that takes them.

    `features`: float32 [batch, features]. The head: `source_head`.
    """
    features = pooled(network)
    width = features.shape[-1]
    layer = keras.layers.Reshape((width,), dtype="float32", name=FEATURES)
    outputs = {**by_name(network.output), FEATURES: layer(features)}
    return keras.Model(network.inputs, outputs, name=network.name), source_head(width, sources, seed)


def source_head(features: int, sources: int, seed: int) -> keras.Model:
    """Returns the head that tells sources apart: from float32 [batch, features] to logits, float32 [batch, sources].

    Two hidden layers as published, but without dropout: a step is a function of its inputs alone.
    """
    inputs = keras.Input((features,), name="source_features")
    x = inputs
    for number, units in enumerate((WIDTH, WIDTH, sources)):
        x = keras.layers.Dense(
            units,
            activation="relu" if number < 2 else None,
            kernel_initializer=keras.initializers.GlorotUniform(seed + number),
            dtype="float32",
            name=f"SourceLogits-Dense_{number}",
        )(x)
    return keras.Model(inputs, x, name=SOURCE_LOGITS)
