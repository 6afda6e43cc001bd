import keras
import pytest

from marco_model import depths


def convolutions():
    """Every convolution by its full name, in the order of the table."""
    for layer in depths.STEM:
        if isinstance(layer, depths.Conv):
            yield layer.name, layer
    for block, branches in depths.BLOCKS.items():
        for index, branch in enumerate(branches):
            for layer in branch:
                pair = layer if not isinstance(layer, (depths.Conv, depths.Pool)) else [layer]
                yield from ((f"{block}/Branch_{index}/{c.name}", c) for c in pair if isinstance(c, depths.Conv))


CONVS = dict(convolutions())


def test_before_any_cap_the_table_is_keras_applications_inception_v3_behind_one_more_convolution():
    stock = keras.applications.InceptionV3(weights=None, include_top=False)
    layers = [layer for layer in stock.layers if isinstance(layer, keras.layers.Conv2D)]
    order = sorted(layers, key=lambda layer: int(layer.name.partition("_")[2] or 0))
    expected = [(layer.kernel_size, layer.filters, layer.strides[0], layer.padding) for layer in order]
    table = [(conv.kernel, conv.depth, conv.stride, conv.padding) for conv in CONVS.values()]
    assert table[0] == ((3, 3), 16, 2, "valid")
    # A 1x1 convolution is the same with either padding; Keras pads where TF-Slim does not.
    assert [row[:3] for row in table[1:]] == [row[:3] for row in expected]
    assert all(ours == theirs for ours, theirs in zip(table[1:], expected, strict=True) if ours[0] != (1, 1))


@pytest.mark.parametrize(
    ("name", "cap"),
    [
        ("Conv2d_3b_1x1", None),
        ("Conv2d_4a_3x3", 144),
        ("Mixed_5d/Branch_2/Conv2d_0b_3x3", None),
        ("Mixed_6e/Branch_2/Conv2d_0a_1x1", 96),
        ("Mixed_7c/Branch_1/Conv2d_0b_1x3", 192),
        ("Mixed_7c/Branch_3/Conv2d_0b_1x1", 96),
    ],
)
def test_the_longest_name_that_fits_gives_the_cap(name, cap):
    assert depths.cap(name) == cap


def test_paper_obeys_every_cap_and_cuts_nothing_else():
    for name, conv in CONVS.items():
        limit = depths.cap(name)
        assert depths.depth(name, conv.depth, "paper") == (conv.depth if limit is None else min(conv.depth, limit))


def test_released_differs_from_paper_in_two_convolutions():
    differing = {
        name: tuple(depths.depth(name, conv.depth, variant) for variant in ("paper", "released"))
        for name, conv in CONVS.items()
        if depths.depth(name, conv.depth, "paper") != depths.depth(name, conv.depth, "released")
    }
    assert differing == {"Mixed_6c/Branch_2/Conv2d_0b_7x1": (144, 160), "Mixed_6e/Branch_2/Conv2d_0a_1x1": (96, 192)}


def test_the_multiplier_scales_as_in_slim():
    assert [depths.depth("Conv2d_3b_1x1", 80, "paper", m) for m in (0.1, 0.33, 1.0, 1.5)] == [16, 26, 80, 120]
