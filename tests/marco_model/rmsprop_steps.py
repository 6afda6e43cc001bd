"""TensorFlow 1's rule of RMSProp, and the same steps by this project's optimizer under any distribution strategy."""

import numpy as np
import tensorflow as tf

from marco_model.training_step import RMSProp, on_all_devices

TARGET = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
STEPS = 1_000


def gradients_and_rates():
    """Noise that every side adds to the gradient of a fixed quadratic, and a staircase of rates."""
    rng = np.random.default_rng(1)
    for step in range(STEPS):
        yield rng.normal(scale=0.1, size=TARGET.shape).astype(np.float32), np.float32(0.045 * 0.94 ** (step // 50))


def by_tf1s_rule():
    """The rule as TensorFlow 1's documentation of RMSPropOptimizer states it, in NumPy, float32."""
    weights, mean_square, momentum = np.zeros_like(TARGET), np.ones_like(TARGET), np.zeros_like(TARGET)
    for noise, rate in gradients_and_rates():
        gradient = weights - TARGET + noise
        mean_square = mean_square * np.float32(0.9) + gradient * gradient * np.float32(0.1)
        momentum = momentum * np.float32(0.9) + rate * gradient / np.sqrt(mean_square + np.float32(0.1))
        weights = weights - momentum
    return weights


def by_ours(strategy):
    """The same steps by `RMSProp` under a strategy, replicas seeing gradients that average to the same."""
    with strategy.scope():
        weights = tf.Variable(np.zeros_like(TARGET))
        optimizer = RMSProp([weights], rho=0.9, momentum=0.9, epsilon=0.1)

    @tf.function
    def step(noise, rate):
        def replica():
            context = tf.distribute.get_replica_context()
            apart = tf.cast(context.replica_id_in_sync_group, tf.float32) * 2.0 - (context.num_replicas_in_sync - 1)
            gradient = tf.convert_to_tensor(weights) - TARGET + noise + apart
            gradient = context.all_reduce(tf.distribute.ReduceOp.MEAN, gradient)
            context.merge_call(lambda merged: optimizer.apply(on_all_devices(merged), [gradient], rate))

        strategy.run(replica)

    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        for noise, rate in gradients_and_rates():
            coordinator.schedule(step, args=(tf.constant(noise), tf.constant(rate))).fetch()
        return [weights.numpy()]
    for noise, rate in gradients_and_rates():
        step(tf.constant(noise), tf.constant(rate))
    return [value.numpy() for value in strategy.experimental_local_results(weights)]
