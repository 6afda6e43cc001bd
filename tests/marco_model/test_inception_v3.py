import keras
import numpy as np
import pytest
import tensorflow as tf

from marco_model.errors import InputError
from marco_model.inception_v3 import inception_v3, slim_name
from marco_model.preprocessing import evaluation_batch
from marco_model.released import published_directory

OUTPUT_DEPTHS = {
    "Mixed_5b": 256,
    "Mixed_5c": 288,
    "Mixed_5d": 288,
    "Mixed_6a": 640,
    "Mixed_6b": 512,
    "Mixed_6c": 576,
    "Mixed_6d": 576,
    "Mixed_6e": 384,
    "Mixed_7a": 576,
    "Mixed_7b": 1056,
    "Mixed_7c": 1056,
}


def test_released_has_the_published_variables_and_no_other(released_model):
    checkpoint = tf.train.load_checkpoint(str(published_directory() / "variables" / "variables"))
    published = checkpoint.get_variable_to_shape_map()
    assert len(published) == 393
    del published["global_step"]
    assert {slim_name(variable): list(variable.shape) for variable in released_model.variables} == published


def test_paper_differs_from_released_only_around_the_two_uncapped_convolutions(released_model):
    models = (inception_v3(variant="paper", auxiliary=True), released_model)
    paper, released = ({slim_name(v): tuple(v.shape) for v in model.variables} for model in models)
    assert {name.rpartition("/")[0] for name in paper if paper[name] != released[name] and "weights" in name} == {
        "Inception/Mixed_6c/Branch_2/Conv2d_0b_7x1",
        "Inception/Mixed_6c/Branch_2/Conv2d_0c_1x7",
        "Inception/Mixed_6e/Branch_2/Conv2d_0a_1x1",
        "Inception/Mixed_6e/Branch_2/Conv2d_0b_7x1",
    }
    assert paper["Inception/Mixed_6c/Branch_2/Conv2d_0b_7x1/weights"] == (7, 1, 144, 144)
    assert paper["Inception/Mixed_6e/Branch_2/Conv2d_0a_1x1/weights"] == (1, 1, 576, 96)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_grids_and_depths_of_the_blocks_at_599_pixels(variant, released_model):
    model = released_model if variant == "released" else inception_v3(variant=variant)
    grids = {"Mixed_5": 35, "Mixed_6": 17, "Mixed_7": 8}
    for name, depth in OUTPUT_DEPTHS.items():
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
def test_what_makes_no_network_is_refused(wrong, reason):
    with pytest.raises(InputError, match=reason):
        inception_v3(**wrong)
