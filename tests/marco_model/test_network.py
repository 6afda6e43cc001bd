import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from marco_model import preprocessing, training_step
from marco_model.classifier import with_features
from marco_model.errors import InputError
from marco_model.network import ARCHITECTURES, Network, build
from marco_model.recipe import Recipe
from marco_model.training_step import training_loss

SMALL = Network(input_size=187, depth_multiplier=0.1, batch_norm_momentum=0.9)


def train(model, steps=2):
    """Takes real steps of the recipe: loss with L2, RMSProp, moving statistics."""
    recipe = Recipe(learning_rate=0.01, epsilon=0.001)
    random = np.random.default_rng(0)
    images = tf.constant(random.uniform(-1, 1, (4, *model.input_shape[1:])), tf.float32)
    labels = tf.constant([0, 1, 2, 1], tf.int64)
    trained = [tf.Variable(variable.value) for variable in model.trainable_variables]
    optimizer = training_step.RMSProp(trained, rho=recipe.rho, momentum=recipe.momentum, epsilon=recipe.epsilon)
    others = [tf.convert_to_tensor(variable.value) for variable in model.non_trainable_variables]
    for _ in range(steps):
        with tf.GradientTape() as tape:
            values = [tf.convert_to_tensor(variable) for variable in trained]
            tape.watch(values)
            outputs, others = model.stateless_call(values, others, images, training=True)
            loss = training_loss(outputs, labels, [value for value in values if len(value.shape) > 1], recipe)
        gradients = tape.gradient(loss, values)
        update = training_step.on_all_devices(tf.distribute.get_strategy())
        optimizer.apply(update, gradients, tf.constant(recipe.learning_rate))
    assert np.isfinite(float(loss))
    for variable, value in zip(
        model.trainable_variables + model.non_trainable_variables, trained + list(others), strict=True
    ):
        variable.assign(value)
    return gradients


def changed_variables(before, model):
    return {v.path for v in model.variables if not np.array_equal(before[v.path], v)}


def values(model):
    return {variable.path: np.array(variable) for variable in model.variables}


def test_first_weights_depend_on_the_seed_alone():
    first, same, other = (build(SMALL, num_classes=3, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), same.get_weights(), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first.get_weights(), other.get_weights(), strict=True))


def test_half_precision_changes_what_layers_compute_in_and_nothing_else():
    full = build(SMALL, num_classes=3, seed=0)
    half = build(SMALL, num_classes=3, seed=0, dtype_policy="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    below = [layer for layer in half.layers if layer.weights and "ogits-" not in layer.name]
    assert {layer.compute_dtype for layer in below} == {"bfloat16"}
    assert {output.dtype for output in half.output.values()} == {"float32"}
    assert [variable.path for variable in half.variables] == [variable.path for variable in full.variables]
    for ours, theirs in zip(half.variables, full.variables, strict=True):
        assert ours.dtype == "float32"
        np.testing.assert_array_equal(ours, theirs)


def test_fields_that_are_left_out_take_the_architectures_own_values():
    sizes = {name: Network(architecture=name).input_size for name in ARCHITECTURES}
    assert sizes == {"inception_v3": 599, "inception_resnet_v2": 299, "nasnet_mobile": 224, "nasnet_large": 331}
    assert (Network().variant, Network().auxiliary) == ("paper", True)
    assert Network(initial="released").variant == "released"
    assert (Network(architecture="nasnet_mobile").variant, Network(architecture="nasnet_mobile").auxiliary) == (
        None,
        False,
    )
    assert [Network(trainable=part).auxiliary for part in ("Mixed_5b", "Mixed_6e", "Mixed_7a", "head")] == [
        True,
        True,
        False,
        False,
    ]
    assert Network(trainable="head", auxiliary=True).auxiliary
    for network in (SMALL, Network(architecture="nasnet_large"), Network(initial="released", trainable="head")):
        assert Network(**json.loads(json.dumps(dataclasses.asdict(network)))) == network


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architecture": "nasnet_mobile", "variant": "paper"}, "network.variant is 'paper'.*only inception_v3"),
        ({"architecture": "nasnet_large", "depth_multiplier": 0.5}, "depth_multiplier is 0.5"),
        ({"depth_multiplier": float("inf")}, "network.depth_multiplier is inf; it must be a finite number, above 0"),
        ({"batch_norm_momentum": 1.0}, "network.batch_norm_momentum is 1.0; it must be at least 0 and below 1"),
        ({"architecture": "inception_resnet_v2", "auxiliary": True}, "auxiliary is True"),
        ({"architecture": "inception_resnet_v2", "input_size": 74}, "74.*at least 75"),
        ({"input_size": 150}, "150.*at least 151"),
        ({"architecture": "resnet"}, "'resnet'; give one of inception_v3"),
        ({"trainable": "Mixed_7d"}, "'Mixed_7d'.*Mixed_5b, .*Mixed_7c"),
        ({"trainable": "Mixed_7a", "architecture": "nasnet_mobile"}, "first block of nasnet_mobile.*normal_12"),
        ({"initial": "released", "variant": "paper"}, "variant paper"),
        ({"initial": "released", "architecture": "nasnet_mobile"}, "with nasnet_mobile"),
        ({"initial": "released", "depth_multiplier": 0.5}, "0.5"),
    ],
)
def test_values_that_cannot_apply_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Network(**wrong)


# Parameters with 1,000 classes as https://keras.io/api/applications gives them, in full in each model's summary there.
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "count", "features"),
    [
        ("inception_resnet_v2", 55_873_736, 1536),
        ("nasnet_mobile", 5_326_716, 1056),
        ("nasnet_large", 88_949_818, 4032),
    ],
)
def test_parameters_are_as_many_as_published(name, count, features):
    model = build(Network(architecture=name, input_size=96), num_classes=1000, seed=0)
    assert model.count_params() == count
    names = {layer.name for layer in model.layers}
    assert {*ARCHITECTURES[name].blocks.values(), ARCHITECTURES[name].features, *ARCHITECTURES[name].logits} <= names
    both = with_features(model)
    assert both.output["embeddings"].shape == (None, features)
    assert both.get_layer("embeddings").input is model.get_layer("predictions").input


def test_images_have_the_range_that_the_applications_were_made_for():
    pixels = np.array([[[[0, 100, 255]]]], np.float32)
    for module in (keras.applications.inception_resnet_v2, keras.applications.nasnet):
        np.testing.assert_allclose(
            module.preprocess_input(pixels.copy()), preprocessing.to_network_range(pixels), atol=1e-6
        )


@pytest.mark.long
@pytest.mark.usefixtures("short_applications")
@pytest.mark.parametrize(
    ("name", "size", "part", "trained"),
    [("inception_resnet_v2", 75, "block8_10", 4 * 4 + 2 + 4 + 2), ("nasnet_mobile", 32, "head", 2)],
)
def test_an_application_trains_completely_or_at_its_top_in_either_precision_with_the_same_names(
    name, size, part, trained
):
    whole = Network(architecture=name, input_size=size, batch_norm_momentum=0.75)
    top = build(dataclasses.replace(whole, trainable=part), num_classes=3, seed=0)
    half = build(whole, num_classes=3, seed=0, dtype_policy="mixed_bfloat16")
    before = values(half)
    assert list(values(top)) == list(before)
    assert not changed_variables(before, top)
    norms = [layer for layer in half.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.75}
    assert half.output.dtype == "float32"
    train(top, steps=1)
    assert len(changed_variables(before, top)) == trained
    train(half, steps=1)
    assert len(changed_variables(before, half)) > 0.95 * len(before)


@pytest.mark.parametrize(
    ("network", "trained"),
    [
        (dataclasses.replace(SMALL, trainable="head", auxiliary=False), "Logits-"),
        (dataclasses.replace(SMALL, trainable="Mixed_7b", auxiliary=False), "Mixed_7b-|Mixed_7c-|Logits-"),
        (dataclasses.replace(SMALL, trainable="Mixed_6e", auxiliary=True), "Mixed_6e-|Mixed_7|Logits-|AuxLogits-"),
    ],
)
def test_frozen_layers_stay_bit_for_bit_and_the_rest_trains(network, trained):
    model = build(network, num_classes=3, seed=0)
    before = values(model)
    gradients = train(model)
    prefixes = tuple(trained.split("|"))
    expected = {path for path in before if path.startswith(prefixes)}
    assert {variable.path for variable in model.trainable_variables} == {
        path for path in expected if "moving" not in path
    }
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    assert changed_variables(before, model) == expected
