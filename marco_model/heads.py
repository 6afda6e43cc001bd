"""Heads beside that of the classes, on the features that it classifies: of raw labels, and of sources.

The raw head is part of the network and is exported with it. The source head is only trained with: what is below it
learns to deceive it, since its gradient is reversed (Ganin and Lempitsky 2015; Ganin et al. 2016, JMLR 17:59).
"""

from typing import Any

import keras
import tensorflow as tf

from marco_model import errors

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


def reverse_gradient(features: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Returns `features` as they are; their gradient is multiplied by −`strength`, a float32 scalar."""

    @tf.custom_gradient
    def reverse(values: tf.Tensor) -> Any:
        return tf.identity(values), lambda gradient: -strength * gradient

    return reverse(features)


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0, *, all_known: bool = False
) -> tf.Tensor:
    """Returns the cross-entropy of float32 [batch, classes] logits with int64 [batch] labels, of which −1 are unknown.

    Smoothing s over k classes: 1 − s + s/k for the label, s/k for the others. An unknown label adds nothing, and the
    sum is divided by the whole batch: each label weighs the same however many are known, and the mean over the replicas
    of a batch is that of the batch. `all_known`: no label is unknown.
    """
    classes = logits.shape[-1]
    target = tf.one_hot(labels, classes) * (1.0 - smoothing) + smoothing / classes
    losses = tf.nn.softmax_cross_entropy_with_logits(target, tf.cast(logits, tf.float32))
    return tf.reduce_mean(losses if all_known else tf.where(labels >= 0, losses, 0.0))
