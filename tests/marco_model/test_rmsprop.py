import numpy as np
import tensorflow as tf

from marco_model.rmsprop import RMSProp


def test_a_thousand_steps_match_tf1s_rule():
    """The rule as TensorFlow 1's documentation of RMSPropOptimizer states it, in NumPy, float32."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(5, 3)).astype(np.float32)
    ours = tf.Variable(np.zeros_like(target))
    optimizer = RMSProp([ours], rho=0.9, momentum=0.9, epsilon=0.1)
    weights, mean_square, momentum = np.zeros_like(target), np.ones_like(target), np.zeros_like(target)
    for step in range(1_000):
        rate = np.float32(0.045 * 0.94 ** (step // 50))
        noise = rng.normal(scale=0.1, size=target.shape).astype(np.float32)
        optimizer.apply([tf.convert_to_tensor(ours) - target + noise], tf.constant(rate))
        gradient = weights - target + noise
        mean_square = mean_square * np.float32(0.9) + gradient * gradient * np.float32(0.1)
        momentum = momentum * np.float32(0.9) + rate * gradient / np.sqrt(mean_square + np.float32(0.1))
        weights = weights - momentum
    np.testing.assert_allclose(ours.numpy(), weights, atol=1e-5)
