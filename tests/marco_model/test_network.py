import keras
import numpy as np

from marco_model.network import Network, build

SMALL = Network(input_size=151, depth_multiplier=0.1, auxiliary=True, batch_norm_momentum=0.9)


def test_first_weights_depend_on_the_seed_alone():
    one, same, other = (build(SMALL, num_classes=3, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), same.get_weights(), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_half_precision_changes_what_layers_compute_in_and_nothing_else():
    full = build(SMALL, num_classes=3, seed=0)
    half = build(SMALL, num_classes=3, seed=0, dtype_policy="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    convolutions = [layer for layer in half.layers if layer.weights and "Logits-" not in layer.name]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    assert {output.dtype for output in half.output.values()} == {"float32"}
    assert [variable.path for variable in half.variables] == [variable.path for variable in full.variables]
    for ours, theirs in zip(half.variables, full.variables, strict=True):
        assert ours.dtype == "float32"
        np.testing.assert_array_equal(ours, theirs)
