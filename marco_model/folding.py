"""Folds each batch norm into the convolution before it: the same function with half the layers, for serving."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import layers


class _Folded(layers.Layer):
    """Stands where a batch norm stood and takes the arguments that its call took."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return inputs


def _followers(model: keras.Model) -> dict[str, layers.BatchNormalization]:
    """Maps a convolution's name to the batch norm that alone consumes it, with nothing between."""
    consumed = [layer.input for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    consumers = Counter(_source(tensor).name for tensor in keras.tree.flatten([consumed, model.output]))
    pairs = {}
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            source = _source(layer.input)
            linear = isinstance(source, layers.Conv2D) and source.activation is keras.activations.linear
            if linear and consumers[source.name] == 1:
                pairs[source.name] = layer
    return pairs


def _source(tensor: Any) -> layers.Layer:
    return tensor._keras_history.operation


def fold(model: keras.Model) -> keras.Model:
    """Returns a float32 copy for inference whose convolutions do what they and their batch norm did.

    With the moving mean m and variance v, scale s = gamma / sqrt(v + epsilon) of the output channel:
    s * (k * x - m) + beta = (s k) * x + (beta - s m).
    """
    norms = _followers(model)
    folded_norms = {norm.name for norm in norms.values()}

    def clone(layer: layers.Layer) -> layers.Layer:
        if layer.name in folded_norms:
            return _Folded(name=layer.name, dtype="float32")
        if layer.name in norms:
            return layers.Conv2D.from_config({**layer.get_config(), "use_bias": True, "dtype": "float32"})
        return layer.__class__.from_config({**layer.get_config(), "dtype": "float32"})

    folded = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        if layer.name in norms:
            folded.get_layer(layer.name).set_weights(_folded_weights(layer, norms[layer.name]))
        elif layer.weights and layer.name not in folded_norms:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


def _folded_weights(conv: layers.Conv2D, norm: layers.BatchNormalization) -> list[np.ndarray]:
    mean, variance = (np.asarray(weight, np.float64) for weight in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else 1.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    bias = np.asarray(norm.beta, np.float64) - scale * mean
    if conv.use_bias:
        bias = bias + scale * np.asarray(conv.bias, np.float64)
    return [(np.asarray(conv.kernel, np.float64) * scale).astype(np.float32), bias.astype(np.float32)]
