import keras
import numpy as np
from keras import layers

from marco_model.batch_norm import fold
from marco_model.inception_v3 import inception_v3


def shake(model):
    """Gives every variable a value that it would not start with."""
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


def test_what_cannot_be_folded_stays_and_the_scores_are_the_same():
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
