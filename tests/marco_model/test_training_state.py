import numpy as np
import tensorflow as tf

from marco_model.training_step import TrainingState
from tests.marco_model import small_problem as small


def test_steps_from_stale_values_never_make_a_variance_negative():
    """As when asynchronous workers, which all read the first values, hand in their steps one after another."""
    state = TrainingState(small.network(), small.RECIPE)
    images = (
        tf.zeros([4, small.SIZE, small.SIZE, 3], tf.uint8) + tf.constant([0, 20, 40, 60], tf.uint8)[:, None, None, None]
    )
    values = [tf.convert_to_tensor(v) for v in state.trained], [tf.convert_to_tensor(v) for v in state.statistics]
    gradients, added, _, _ = state._forward_and_backward(*values, images, None, tf.constant([0, 1, 0, 1], tf.int64))
    for _ in range(12):
        tf.distribute.get_replica_context().merge_call(
            state._update, args=(gradients, added, tf.constant(0.0), tf.constant(0.5))
        )
    mean, variance = (statistic.numpy() for statistic in state.statistics)
    momentum = 0.5
    np.testing.assert_allclose(variance, added[1] / (1 - momentum), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(mean, added[0] / (1 - momentum), rtol=1e-3, atol=1e-3)
    assert (variance >= 0).all()
    assert (added[1].numpy() / (1 - momentum) < 0.5).all(), "far from the first value, 1, so that staleness shows"
