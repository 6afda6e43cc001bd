import keras
import numpy as np
import pytest
import tensorflow as tf

from marco_model.batch_norm import BatchNormalization


def pair(dtype="float32", **options):
    """Ours and Keras's, with the same weights: none that a layer starts with."""
    made = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.75, epsilon=0.001, dtype=dtype, **options)
        layer.build((None, None, None, 5))
        random = np.random.default_rng(0)
        layer.set_weights([random.uniform(0.5, 2, weight.shape) for weight in layer.get_weights()])
        made.append(layer)
    return made


def train(layer, images):
    """Outputs, gradients by input and weights, and moving statistics of one call in training."""
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        target = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
    gradients = tape.gradient(target, [x, *(variable.value for variable in layer.trainable_variables)])
    return [np.asarray(tf.cast(value, tf.float32)) for value in (y, *gradients, *layer.non_trainable_variables)]


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("shape", [(4, 9, 7, 5), (2, 1, 1, 5), (1, 2, 1, 5), (1, 1, 1, 5)])
def test_training_is_keras_batch_norms_to_the_moving_statistics(shape, scale):
    images = np.random.default_rng(1).normal(3, 2, shape).astype(np.float32)
    ours, keras_own = (train(layer, images) for layer in pair(scale=scale))
    for value, expected in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-4, rtol=1e-4)


def test_half_precision_keeps_its_moments_in_full():
    images = np.random.default_rng(1).normal(3, 2, (4, 9, 7, 5)).astype(np.float32)
    ours, keras_own = (train(layer, images) for layer in pair("mixed_bfloat16", scale=False))
    np.testing.assert_allclose(ours[0], keras_own[0], atol=0.05)
    for value, expected in zip(ours[-2:], keras_own[-2:], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_it_normalises_by_its_moving_statistics_in_inference_and_when_frozen(frozen):
    images = np.random.default_rng(1).normal(3, 2, (4, 9, 7, 5)).astype(np.float32)
    ours, keras_own = pair(scale=False)
    if frozen:
        ours.trainable = False
    before = ours.get_weights()
    np.testing.assert_array_equal(ours(images, training=frozen), keras_own(images, training=False))
    for weight, after in zip(before, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, after)


def test_synchronized_moments_are_keras_own():
    images = np.random.default_rng(1).normal(3, 2, (4, 9, 7, 5)).astype(np.float32)
    ours, keras_own = (train(layer, images) for layer in pair(scale=False, synchronized=True))
    for value, expected in zip(ours, keras_own, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_it_compiles_and_trains_as_a_pure_function():
    images = np.random.default_rng(1).normal(3, 2, (4, 9, 7, 5)).astype(np.float32)
    inputs = keras.Input((9, 7, 5))
    model = keras.Model(inputs, BatchNormalization(scale=False, momentum=0.75)(inputs))
    values = [
        [variable.value for variable in group] for group in (model.trainable_variables, model.non_trainable_variables)
    ]

    @tf.function(jit_compile=True)
    def compiled(x):
        return model.stateless_call(*values, x, training=True)

    outputs, (mean, variance) = compiled(images)
    np.testing.assert_allclose(tf.reduce_mean(outputs, (0, 1, 2)), np.zeros(5), atol=1e-5)
    np.testing.assert_allclose(mean, 0.25 * images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, 0.75 + 0.25 * images.var((0, 1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(model.non_trainable_variables[0], np.zeros(5))
