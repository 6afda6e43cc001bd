import numpy as np
import tensorflow as tf

from tests.marco_model.rmsprop_steps import by_ours, by_tf1s_rule


def test_a_thousand_steps_match_tf1s_rule():
    """Other engines: tests/marco_model/engines."""
    (weights,) = by_ours(tf.distribute.get_strategy())
    np.testing.assert_allclose(weights, by_tf1s_rule(), atol=1e-5)
