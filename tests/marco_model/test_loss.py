import numpy as np
import pytest
import tensorflow as tf

from marco_model import training_step
from marco_model.recipe import Recipe


def test_smoothed_cross_entropy_in_closed_form():
    logits = np.array([[2.0, -1.0, 0.5, 0.0], [0.0, 3.0, 1.0, -2.0]], np.float32)
    labels = np.array([0, 2])
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean([0.9 * logs[i, label] + 0.1 * logs[i].mean() for i, label in enumerate(labels)])
    assert float(training_step.cross_entropy(tf.constant(logits), labels, 0.1)) == pytest.approx(expected, rel=1e-6)


def test_training_loss_sums_both_heads_and_half_the_squared_kernels():
    logits, kernel = tf.zeros([2, 4]), tf.constant([[3.0, 4.0]])
    recipe = Recipe(auxiliary_weight=0.4, weight_decay=0.1)
    total = training_step.training_loss(
        {"logits": logits, "auxiliary_logits": logits}, tf.constant([0, 1]), [kernel], recipe
    )
    assert float(total) == pytest.approx(1.4 * np.log(4) + 0.1 * 25 / 2, rel=1e-6)


def test_an_even_guess_at_the_published_ceiling():
    """The highest published score, 0.925 = 1 - 0.1 + 0.1/4, is where smoothing 0.1 has its minimum."""
    best = tf.math.log(tf.constant([[0.925, 0.025, 0.025, 0.025]]))
    at_best = float(training_step.cross_entropy(best, tf.constant([0]), 0.1))
    for score in (0.9, 0.95):
        other = tf.math.log(tf.constant([[score, *[(1 - score) / 3] * 3]]))
        assert float(training_step.cross_entropy(other, tf.constant([0]), 0.1)) > at_best
