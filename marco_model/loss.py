"""The training loss: smoothed cross-entropy of both heads and the L2 of the kernels, summed as in TF-Slim."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from marco_model.recipe import Recipe


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Returns the mean over float32 [batch, classes] logits of the cross-entropy with int64 [batch] labels, smoothed.

    Smoothing s over k classes: 1 − s + s/k for the label, s/k for the others.
    """
    classes = logits.shape[-1]
    target = tf.one_hot(labels, classes) * (1.0 - smoothing) + smoothing / classes
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, tf.cast(logits, tf.float32)))


def heads(outputs: Any) -> dict[str, tf.Tensor]:
    """Returns the network's outputs by head: `logits`, and `auxiliary_logits` where it has that head."""
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


def training_loss(outputs: Any, labels: tf.Tensor, kernels: list[tf.Tensor], recipe: Recipe) -> tf.Tensor:
    """Returns the scalar loss of the network's outputs: logits, or a dict with `logits` and `auxiliary_logits`.

    `tf.nn.l2_loss` halves the sum of squares, as TF-Slim's `l2_regularizer` does.
    """
    by_head = heads(outputs)
    loss = cross_entropy(by_head["logits"], labels, recipe.label_smoothing)
    if "auxiliary_logits" in by_head:
        auxiliary = cross_entropy(by_head["auxiliary_logits"], labels, recipe.label_smoothing)
        loss += recipe.auxiliary_weight * auxiliary
    return loss + recipe.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
