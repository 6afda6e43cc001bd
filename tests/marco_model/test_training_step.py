import numpy as np
import pytest
import tensorflow as tf

from marco_model import training_step
from marco_model.recipe import Recipe
from tests.marco_model import rmsprop_steps, small_problem as small


def test_a_thousand_steps_match_tf1s_rule():
    """Other engines: tests/marco_model/engines."""
    (weights,) = rmsprop_steps.by_ours(tf.distribute.get_strategy())
    np.testing.assert_allclose(weights, rmsprop_steps.by_tf1s_rule(), atol=1e-5)


def test_smoothed_cross_entropy_in_closed_form():
    logits = np.array([[2.0, -1.0, 0.5, 0.0], [0.0, 3.0, 1.0, -2.0]], np.float32)
    labels = np.array([0, 2])
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean([0.9 * logs[i, label] + 0.1 * logs[i].mean() for i, label in enumerate(labels)])
    assert float(training_step.cross_entropy(tf.constant(logits), labels, 0.1, all_known=True)) == pytest.approx(
        expected, rel=1e-6
    )


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
    at_best = float(training_step.cross_entropy(best, tf.constant([0]), 0.1, all_known=True))
    for score in (0.9, 0.95):
        other = tf.math.log(tf.constant([[score, *[(1 - score) / 3] * 3]]))
        assert float(training_step.cross_entropy(other, tf.constant([0]), 0.1, all_known=True)) > at_best


def test_an_evaluation_of_given_averages_reads_no_variable():
    state = training_step.TrainingState(small.network(), small.RECIPE)
    images, labels = tf.zeros([4, small.SIZE, small.SIZE, 3]), tf.constant([0, 1, 1, -1], tf.int64)
    sums = tf.function(state.evaluation_sums, autograph=False)
    program = sums.get_concrete_function(state.average_values(), images, labels)
    assert not program.variables
    assert float(sums(state.average_values(), images, labels)[2]) == 3


def test_steps_from_stale_values_never_make_a_variance_negative():
    """Simulates asynchronous workers that all read the first values and apply their steps one after another."""
    state = training_step.TrainingState(small.network(), small.RECIPE)
    images = (
        tf.zeros([4, small.SIZE, small.SIZE, 3], tf.uint8) + tf.constant([0, 20, 40, 60], tf.uint8)[:, None, None, None]
    )
    replica = tf.distribute.get_replica_context()
    values = [tf.convert_to_tensor(v) for v in state.trained], [tf.convert_to_tensor(v) for v in state.statistics]
    gradients, added, _, _ = state._forward_and_backward(*values, images, None, tf.constant([0, 1, 0, 1], tf.int64))
    for _ in range(12):
        replica.merge_call(state._update_all, args=(gradients, added, tf.constant(0.0), tf.constant(0.5)))
    mean, variance = (statistic.numpy() for statistic in state.statistics)
    momentum = 0.5
    np.testing.assert_allclose(variance, added[1] / (1 - momentum), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(mean, added[0] / (1 - momentum), rtol=1e-3, atol=1e-3)
    assert (variance >= 0).all()
    assert (added[1].numpy() / (1 - momentum) < 0.5).all(), "far from the first value, 1, so that staleness shows"


class ReadEarlier:
    """A variable as seen by a worker that read it before another worker wrote to it."""

    def __init__(self, variable):
        self._variable, self._value = variable, tf.convert_to_tensor(variable)

    def __tf_tensor__(self, dtype=None, name=None):
        return self._value

    def __sub__(self, other):
        return self._value - other

    def assign(self, value):
        self._variable.assign(value)

    def assign_sub(self, delta):
        self._variable.assign_sub(delta)


def test_a_running_average_stays_between_its_values_when_workers_read_at_the_same_time():
    """A variance that falls from 1 to 0.1 at decay 0.1: two deltas of one reading would make its average −0.62."""
    average, variance = tf.Variable(1.0), tf.Variable(0.1)
    for worker in [ReadEarlier(average), ReadEarlier(average)]:
        training_step._approach(worker, variance, tf.constant(0.1))
    assert 0.1 <= average.numpy() <= 1.0
