import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from marco_model.errors import InputError
from marco_model.inception_table import BLOCKS, CAPS, STEM, Conv, Pool
from marco_model.inception_v3 import filters, inception_v3, slim_name
from marco_model.model_directory import published_directory
from marco_model.network import ARCHITECTURES
from marco_model.preprocessing import evaluation_batch
from tests import short_network


def convolutions():
    """Every convolution by its full name, in the order of the table."""
    for layer in STEM:
        if isinstance(layer, Conv):
            yield layer.name, layer
    for block, branches in BLOCKS.items():
        for index, branch in enumerate(branches):
            for layer in branch:
                pair = layer if not isinstance(layer, (Conv, Pool)) else [layer]
                yield from ((f"{block}/Branch_{index}/{c.name}", c) for c in pair if isinstance(c, Conv))


CONVS = dict(convolutions())


def test_before_any_cap_the_table_is_keras_applications_inception_v3_behind_one_more_convolution():
    stock = keras.applications.InceptionV3(weights=None, include_top=False)
    convolutions_of_stock = [layer for layer in stock.layers if isinstance(layer, keras.layers.Conv2D)]
    order = sorted(convolutions_of_stock, key=lambda layer: int(layer.name.partition("_")[2] or 0))
    expected = [(layer.kernel_size, layer.filters, layer.strides[0], layer.padding) for layer in order]
    table = [(conv.kernel, conv.depth, conv.stride, conv.padding) for conv in CONVS.values()]
    assert table[0] == ((3, 3), 16, 2, "valid")
    # A 1x1 convolution is the same with either padding; Keras pads where TF-Slim does not.
    assert [row[:3] for row in table[1:]] == [row[:3] for row in expected]
    assert all(ours == theirs for ours, theirs in zip(table[1:], expected, strict=True) if ours[0] != (1, 1))


TABLE_III = """
Conv2d_4a_3x3	144
Mixed_6b	128
Mixed_6c	144
Mixed_6d	144
Mixed_6e	96
Mixed_7a	96
Mixed_7b	192
Mixed_7c	192
"""
"""As printed in Bruno et al. 2018."""


def test_the_caps_are_the_eight_rows_of_table_iii():
    assert {layer: int(depth) for layer, depth in (row.split() for row in TABLE_III.split("\n") if row)} == CAPS


def test_paper_obeys_every_row_of_the_table_and_reduces_nothing_else():
    rows = dict(row.split() for row in TABLE_III.split("\n") if row)
    for name, conv in CONVS.items():
        limit = int(rows.get(name.partition("/")[0], conv.depth))
        assert filters(name, conv.depth, "paper") == min(conv.depth, limit), name


DEPARTURES = {
    "Mixed_6a/Branch_0/Conv2d_1a_1x1": (384, 256),
    "Mixed_6c/Branch_2/Conv2d_0b_7x1": (144, 160),
    "Mixed_6e/Branch_2/Conv2d_0a_1x1": (96, 192),
    "Mixed_7b/Branch_3/Conv2d_0b_1x1": (192, 96),
    "Mixed_7c/Branch_3/Conv2d_0b_1x1": (192, 96),
}
"""Filters by convolution: what Table III leaves of the stock network, and what the published network has."""


def test_released_departs_from_paper_in_five_convolutions():
    differing = {
        name: tuple(filters(name, conv.depth, variant) for variant in ("paper", "released"))
        for name, conv in CONVS.items()
        if filters(name, conv.depth, "paper") != filters(name, conv.depth, "released")
    }
    assert differing == DEPARTURES


def test_the_multiplier_scales_as_in_slim():
    assert [filters("Conv2d_3b_1x1", 80, "paper", m) for m in (0.1, 0.33, 1.0, 1.5)] == [16, 26, 80, 120]


def test_a_configuration_names_the_blocks_of_the_table():
    assert list(ARCHITECTURES["inception_v3"].blocks) == list(BLOCKS)


OUTPUT_DEPTHS = {
    "Mixed_5b": 256,
    "Mixed_5c": 288,
    "Mixed_5d": 288,
    "Mixed_6a": 768,
    "Mixed_6b": 512,
    "Mixed_6c": 576,
    "Mixed_6d": 576,
    "Mixed_6e": 384,
    "Mixed_7a": 576,
    "Mixed_7b": 1152,
    "Mixed_7c": 1152,
}
"""Of `paper`: the sums over the branches of Szegedy et al.'s depths under Table III."""
PUBLISHED_OUTPUT_DEPTHS = {**OUTPUT_DEPTHS, "Mixed_6a": 640, "Mixed_7b": 1056, "Mixed_7c": 1056}


def test_released_has_exactly_the_published_variables(released_model):
    checkpoint = tf.train.load_checkpoint(str(published_directory() / "variables" / "variables"))
    published = checkpoint.get_variable_to_shape_map()
    assert len(published) == 393
    del published["global_step"]
    assert {slim_name(variable): list(variable.shape) for variable in released_model.variables} == published


def test_paper_has_the_values_and_multiply_adds_of_the_table():
    model = inception_v3(variant="paper", auxiliary=True)
    head = [variable for variable in model.variables if variable.path.startswith("AuxLogits")]
    assert model.count_params() == 11_953_240
    assert model.count_params() - sum(math.prod(variable.shape) for variable in head) == 9_440_724
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    products = (
        math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
        for layer in convolutions
        if not layer.name.startswith("AuxLogits")
    )
    assert sum(products) == pytest.approx(4.10e9, abs=0.005e9)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_grids_and_depths_of_the_blocks_at_599_pixels(variant, released_model):
    model = released_model if variant == "released" else inception_v3(variant=variant)
    grids = {"Mixed_5": 35, "Mixed_6": 17, "Mixed_7": 8}
    depths = OUTPUT_DEPTHS if variant == "paper" else PUBLISHED_OUTPUT_DEPTHS
    for name, depth in depths.items():
        grid = grids[name[:-1]]
        assert model.get_layer(name).output.shape == (None, grid, grid, depth)


def test_every_block_gives_what_it_gives_in_the_published_graph(published, released_model, encoded):
    names = ["Mixed_5b", "Mixed_6a", "Mixed_6e", "Mixed_7a", "Mixed_7c"]
    images = evaluation_batch(tf.constant(encoded[2:4]), 599)
    fetches = [f"Inception/Inception/{name}/concat:0" for name in names]
    heads = ["Inception/Logits/SpatialSqueeze:0", "Inception/AuxLogits/SpatialSqueeze:0"]
    expected = published.prune("map/TensorArrayStack/TensorArrayGatherV3:0", [*fetches, *heads])(images)
    tapped = keras.Model(
        released_model.inputs,
        [
            *(released_model.get_layer(name).output for name in names),
            released_model.output["logits"],
            released_model.output["auxiliary_logits"],
        ],
    )
    for ours, theirs in zip(tapped(images, training=False), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(tf.reduce_max(tf.abs(theirs))))


def test_weights_start_as_in_the_published_graph():
    model = inception_v3(variant="paper", auxiliary=True)
    spread = {slim_name(v): float(np.std(v)) for v in model.trainable_variables if "kernel" in v.path}
    assert {slim_name(v).rpartition("/")[2] for v in model.trainable_variables} == {"weights", "biases", "beta"}
    # A normal cut at two standard deviations spreads 0.8796 as wide.
    assert spread["Inception/Mixed_6d/Branch_2/Conv2d_0c_1x7/weights"] == pytest.approx(0.08796, rel=0.02)
    assert spread["Inception/AuxLogits/Conv2d_2a_5x5/weights"] == pytest.approx(0.008796, rel=0.02)
    assert spread["Inception/AuxLogits/Conv2d_2b_1x1/weights"] == pytest.approx(0.0008796, rel=0.05)


@pytest.mark.parametrize("input_size", [151, 187])
def test_small_inputs_reach_both_heads(input_size):
    model = inception_v3(variant="paper", input_size=input_size, num_classes=7, depth_multiplier=0.25, auxiliary=True)
    outputs = model(np.zeros((2, input_size, input_size, 3), np.float32), training=False)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "logits": (2, 7),
        "auxiliary_logits": (2, 7),
    }


def test_it_is_a_pure_function():
    model = inception_v3(variant="paper", input_size=151, depth_multiplier=0.1, batch_norm_momentum=0.75)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 151, 151, 3)).astype(np.float32)
    trainable, state = ([np.array(v) for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    first, moved = model.stateless_call(trainable, state, images, training=True)
    second, _ = model.stateless_call(trainable, state, images, training=True)
    np.testing.assert_array_equal(first, second)
    for before, variable in zip(state, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(before, variable)
    inputs = keras.Model(model.inputs, model.get_layer("Conv2d_0a_3x3").output)(images)
    mean = np.mean(inputs, axis=(0, 1, 2))
    index = [v.path for v in model.non_trainable_variables].index("Conv2d_0a_3x3-BatchNorm/moving_mean")
    np.testing.assert_allclose(moved[index], 0.25 * mean, atol=1e-5)


def test_it_survives_serialization(tmp_path):
    with short_network.cut():
        model = inception_v3(variant="paper", input_size=151, depth_multiplier=0.1)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 151, 151, 3)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), model(images), atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"variant": "stock"}, "stock"),
        ({"variant": "paper", "input_size": 150}, "150.*151"),
        ({"variant": "paper", "depth_multiplier": 0.0}, "depth_multiplier"),
        ({"variant": "paper", "num_classes": 1}, "num_classes"),
    ],
)
def test_arguments_that_describe_no_network_are_refused(wrong, reason):
    with pytest.raises(InputError, match=reason):
        inception_v3(**wrong)
