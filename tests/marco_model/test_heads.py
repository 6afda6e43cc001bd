"""The further heads, their losses and the reversal of gradients, held to a transcription in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax

from marco_model import layers, training_step
from marco_model.errors import InputError
from marco_model.recipe import Recipe, reversal_at
from tests.marco_model import small_problem

RNG = np.random.default_rng(5)
BATCH, FEATURES, SOURCES = 6, 5, 3


def test_the_schedule_of_the_reversal_is_the_published_one():
    recipe = Recipe(steps=1000)
    for step, expected in ((0, 0.0), (100, 0.46211716), (500, 0.98661430), (1000, 0.99990920)):
        assert reversal_at(recipe, step) == pytest.approx(expected, abs=1e-7)
        assert reversal_at(recipe, step) == pytest.approx(np.tanh(5 * step / 1000), abs=1e-12)  # The same function.


@pytest.mark.parametrize("compiled", [False, True])
def test_features_pass_as_they_are_and_their_gradient_is_reversed(compiled):
    features, weights = RNG.normal(size=(2, BATCH, FEATURES)).astype(np.float32)

    @tf.function(jit_compile=compiled, autograph=False)
    def both(features, strength):
        with tf.GradientTape() as tape:
            tape.watch(features)
            passed = training_step.reverse_gradient(features, strength)
            loss = tf.reduce_sum(weights * passed**2)
        return passed, tape.gradient(loss, features)

    for strength in (0.0, 0.3, 1.0):
        passed, gradient = both(tf.constant(features), tf.constant(strength))
        np.testing.assert_array_equal(passed, features)
        np.testing.assert_allclose(gradient, -strength * 2 * weights * features, atol=1e-5)


def test_unknown_labels_add_nothing_and_every_known_one_weighs_the_same():
    logits = RNG.normal(size=(BATCH, SOURCES)).astype(np.float32)
    labels = np.array([0, -1, 2, 1, -1, 0])
    logs = log_softmax(logits, axis=1)
    for smoothing in (0.0, 0.1):
        rows = [(log, label) for log, label in zip(logs, labels, strict=True) if label >= 0]
        losses = [-(1 - smoothing) * log[label] - smoothing * log.mean() for log, label in rows]
        loss = training_step.cross_entropy(tf.constant(logits), tf.constant(labels), smoothing)
        assert float(loss) == pytest.approx(sum(losses) / BATCH, abs=1e-6)
        known = np.where(labels < 0, 1, labels)
        loss = training_step.cross_entropy(tf.constant(logits), tf.constant(known), smoothing)
        alone = training_step.cross_entropy(logits, known, smoothing, all_known=True)
        assert float(loss) == pytest.approx(float(alone), abs=1e-6)


def test_the_gradients_of_adversarial_training_are_those_of_a_transcription():
    """One linear layer makes the features; of its gradient the source head's part is turned round, and weakened."""
    images = RNG.normal(size=(BATCH, 4)).astype(np.float32)
    below, class_kernel = RNG.normal(size=(4, FEATURES)), RNG.normal(size=(FEATURES, 2))
    labels, sources, strength, weight = np.array([0, 1, 1, 0, 1, 0]), np.array([0, 1, 2, -1, 1, 0]), 0.4, 0.7
    head = layers.source_head(FEATURES, SOURCES, seed=1)
    kernels = [np.float64(value) for value in head.get_weights()]

    def ours():
        variables = [tf.Variable(below, dtype=tf.float32), tf.Variable(class_kernel, dtype=tf.float32)]
        targets = tf.stack([labels, sources, np.full(BATCH, -1)], axis=1)
        recipe = Recipe(adversarial_weight=weight, weight_decay=0.0, label_smoothing=0.0)
        with tf.GradientTape() as tape:
            features = images @ variables[0]
            source_logits = head(training_step.reverse_gradient(features, tf.constant(strength)))
            outputs = {"logits": features @ variables[1], "source_logits": source_logits}
            loss = training_step.training_loss(outputs, targets, [tf.zeros([1])], recipe)
        return loss, tape.gradient(loss, [*variables, *head.trainable_variables])

    features = images @ below
    hidden, inputs = features, []
    for number, (kernel, bias) in enumerate(zip(kernels[::2], kernels[1::2], strict=True)):
        inputs.append(hidden)
        hidden = hidden @ kernel + bias
        if number < 2:
            hidden = np.maximum(hidden, 0)
    known = sources >= 0
    source_loss = -log_softmax(hidden, axis=1)[known, sources[known]].sum() / BATCH
    class_loss = -log_softmax(features @ class_kernel, axis=1)[np.arange(BATCH), labels].mean()
    backward = weight * (softmax(hidden, axis=1) - np.eye(SOURCES)[sources]) * known[:, None] / BATCH
    of_head = []
    for number in (2, 1, 0):
        of_head = [inputs[number].T @ backward, backward.sum(axis=0), *of_head]
        backward = backward @ kernels[2 * number].T * ((inputs[number] > 0) if number else 1)
    of_logits = (softmax(features @ class_kernel, axis=1) - np.eye(2)[labels]) / BATCH
    expected = [images.T @ (of_logits @ class_kernel.T - strength * backward), features.T @ of_logits, *of_head]
    loss, gradients = ours()
    assert float(loss) == pytest.approx(class_loss + weight * source_loss, abs=1e-5)
    for gradient, value in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, value, atol=1e-5)


def test_hidden_labels_teach_no_class_and_no_raw_label():
    images, kernel = RNG.normal(size=(BATCH, 4)).astype(np.float32), tf.Variable(RNG.normal(size=(4, 2)))
    recipe = Recipe(unlabelled=("CSIRO",), raw_weight=0.5, label_smoothing=0.1, weight_decay=0.0)

    def gradient(rows):
        targets = tf.constant([[0, 0, 1], [1, 0, -1], [1, 0, 0], [-1, 1, -1], [-1, 1, -1], [-1, 1, -1]], tf.int64)
        with tf.GradientTape() as tape:
            logits = images[rows] @ tf.cast(kernel, tf.float32)
            outputs = {"logits": logits, "raw_logits": logits}
            loss = training_step.training_loss(outputs, tf.gather(targets, rows), [tf.zeros([1])], recipe)
        return tape.gradient(loss, kernel)

    np.testing.assert_allclose(2 * gradient(list(range(6))), gradient([0, 1, 2]), atol=1e-6)


def test_further_heads_leave_the_others_and_the_variables_as_they_are():
    network = small_problem.network()
    images = RNG.normal(size=(3, small_problem.SIZE, small_problem.SIZE, 3)).astype(np.float32)
    functional = keras.Model(network.inputs, network.outputs[0])
    both, head = layers.with_source_head(layers.with_raw_head(functional, 7, seed=0), SOURCES, seed=0)
    outputs = both(images)
    np.testing.assert_allclose(outputs["logits"], network(images), atol=1e-6)
    assert (outputs["raw_logits"].shape, outputs["features"].shape) == ((3, 7), (3, 8))
    kernel, bias = network.get_layer("logits").get_weights()
    np.testing.assert_allclose(outputs["features"] @ kernel + bias, outputs["logits"], atol=1e-5)
    assert head(outputs["features"]).shape == (3, SOURCES)
    own = {variable.path for variable in both.variables} - {variable.path for variable in network.variables}
    assert own == {f"{layers.RAW_LAYER}/kernel", f"{layers.RAW_LAYER}/bias"}


def test_a_network_without_pooled_features_is_refused():
    images = keras.Input((4, 4, 3))
    flat = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(images)), name="flat")
    with pytest.raises(InputError, match="network flat has no GlobalAveragePooling2D"):
        layers.with_raw_head(flat, 3, seed=0)
