import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from marco_model.inception_v3 import inception_v3
from marco_model.layers import BatchNormalization, fold


def pair(dtype="float32", **options):
    """This project's layer and Keras's with the same weights, none of which are initial values."""
    layers_of_both = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.75, epsilon=0.001, dtype=dtype, **options)
        layer.build((None, None, None, 5))
        random = np.random.default_rng(0)
        layer.set_weights([random.uniform(0.5, 2, weight.shape) for weight in layer.get_weights()])
        layers_of_both.append(layer)
    return layers_of_both


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


def shake(model):
    """Gives every variable a value that is not its initial one."""
    random = np.random.default_rng(0)
    for variable in model.variables:
        low, high = (0.5, 2) if "variance" in variable.path or "gamma" in variable.path else (-0.2, 0.2)
        variable.assign(random.uniform(low, high, variable.shape))


def test_a_folded_network_gives_the_same_scores_with_no_batch_norm_left():
    model = inception_v3(variant="paper", input_size=151, depth_multiplier=0.1)
    shake(model)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 151, 151, 3)).astype(np.float32)
    folded = fold(model)
    expected = np.asarray(model(images, training=False))
    np.testing.assert_allclose(folded(images, training=False), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert not [weight for weight in folded.weights if "moving" in weight.path]


def test_scale_and_bias_are_folded_in_as_well():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=True)(images)
    x = layers.BatchNormalization(scale=True, epsilon=0.01)(x)
    model = keras.Model(images, layers.ReLU()(x))
    shake(model)
    inputs = np.random.default_rng(1).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(fold(model)(inputs), model(inputs, training=False), atol=1e-5)


def test_batch_norms_that_cannot_be_folded_stay_and_the_scores_are_the_same():
    images = keras.Input((8, 8, 3))
    shared = layers.Conv2D(4, 3)(images)
    twice = layers.Add()([layers.BatchNormalization(name="shared")(shared), shared])
    bent = layers.BatchNormalization(name="bent")(layers.Conv2D(4, 1, activation="relu")(twice))
    separable = layers.BatchNormalization(name="separable")(layers.SeparableConv2D(4, 3)(bent))
    model = keras.Model(images, layers.BatchNormalization(name="folded")(layers.Conv2D(2, 1)(separable)))
    shake(model)
    inputs = np.random.default_rng(1).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    folded = fold(model)
    np.testing.assert_allclose(folded(inputs), model(inputs, training=False), atol=1e-5)
    left = {layer.name for layer in folded.layers if isinstance(layer, layers.BatchNormalization)}
    assert left == {"shared", "bent", "separable"}


def test_a_network_trained_in_half_precision_serves_in_full():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = inception_v3(variant="paper", input_size=151, depth_multiplier=0.1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in model.layers} == {"bfloat16", "float32"}
    assert {layer.compute_dtype for layer in fold(model).layers} == {"float32"}
