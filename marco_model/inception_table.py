"""The convolutions and poolings of MARCO's Inception-v3 as a table, free of Keras.

Names and stock depths are those of TF-Slim's `inception_v3` (Szegedy et al. 2015), oddities included, so that a layer
has the same name here as in the published checkpoint. `Conv2d_0a_3x3` is MARCO's own: it halves 599x599 to 299x299, the
input that TF-Slim expects. `CAPS` are the limits of Bruno et al. 2018, Table III; `PUBLISHED_DEPTHS` are the five
convolutions in which the published network departs from them.
"""

from typing import NamedTuple

BATCH_NORM_EPSILON = 0.001


class Conv(NamedTuple):
    """A convolution: filters of `kernel` (height, width) pixels, `depth` of them before any cap."""

    name: str
    kernel: tuple[int, int]
    depth: int
    stride: int = 1
    padding: str = "same"


class Pool(NamedTuple):
    """A 3x3 pooling, `kind` being `max` (stride 2, VALID) or `average` (stride 1, SAME)."""

    name: str
    kind: str


Branch = tuple[Conv | Pool | tuple[Conv, Conv], ...]
"""Layers in sequence; a pair of convolutions is two side by side whose outputs are concatenated."""


def convolution(name: str, depth: int, stride: int = 1, padding: str = "same", kernel: str = "") -> Conv:
    """Returns a convolution with the kernel that `kernel` or else its name ends in: `1x7` is (1, 7)."""
    height, width = (kernel or name)[-3:].split("x")
    return Conv(name, (int(height), int(width)), depth, stride, padding)


STEM: Branch = (
    convolution("Conv2d_0a_3x3", 16, 2, "valid"),
    convolution("Conv2d_1a_3x3", 32, 2, "valid"),
    convolution("Conv2d_2a_3x3", 32, 1, "valid"),
    convolution("Conv2d_2b_3x3", 64),
    Pool("MaxPool_3a_3x3", "max"),
    convolution("Conv2d_3b_1x1", 80, 1, "valid"),
    convolution("Conv2d_4a_3x3", 192, 1, "valid"),
    Pool("MaxPool_5a_3x3", "max"),
)


def _mixed_5(pooled: int, reduce: str = "Conv2d_0a_1x1", spread: str = "Conv2d_0b_5x5") -> tuple[Branch, ...]:
    return (
        (convolution("Conv2d_0a_1x1", 64),),
        (convolution(reduce, 48), convolution(spread, 64)),
        (convolution("Conv2d_0a_1x1", 64), convolution("Conv2d_0b_3x3", 96), convolution("Conv2d_0c_3x3", 96)),
        (Pool("AvgPool_0a_3x3", "average"), convolution("Conv2d_0b_1x1", pooled)),
    )


def _mixed_6(inner: int) -> tuple[Branch, ...]:
    return (
        (convolution("Conv2d_0a_1x1", 192),),
        (convolution("Conv2d_0a_1x1", inner), convolution("Conv2d_0b_1x7", inner), convolution("Conv2d_0c_7x1", 192)),
        (
            *(
                convolution(name, inner)
                for name in ("Conv2d_0a_1x1", "Conv2d_0b_7x1", "Conv2d_0c_1x7", "Conv2d_0d_7x1")
            ),
            convolution("Conv2d_0e_1x7", 192),
        ),
        (Pool("AvgPool_0a_3x3", "average"), convolution("Conv2d_0b_1x1", 192)),
    )


def _mixed_7(tall: str) -> tuple[Branch, ...]:
    side_by_side = (convolution("Conv2d_0c_1x3", 384), convolution("Conv2d_0d_3x1", 384))
    return (
        (convolution("Conv2d_0a_1x1", 320),),
        (convolution("Conv2d_0a_1x1", 384), (convolution("Conv2d_0b_1x3", 384), convolution(tall, 384))),
        (convolution("Conv2d_0a_1x1", 448), convolution("Conv2d_0b_3x3", 384), side_by_side),
        (Pool("AvgPool_0a_3x3", "average"), convolution("Conv2d_0b_1x1", 192)),
    )


BLOCKS: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64, "Conv2d_0b_1x1", "Conv_1_0c_5x5"),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": (
        # Named 1x1, these two are 3x3.
        (convolution("Conv2d_1a_1x1", 384, 2, "valid", kernel="3x3"),),
        (
            convolution("Conv2d_0a_1x1", 64),
            convolution("Conv2d_0b_3x3", 96),
            convolution("Conv2d_1a_1x1", 96, 2, "valid", kernel="3x3"),
        ),
        (Pool("MaxPool_1a_3x3", "max"),),
    ),
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
    "Mixed_7a": (
        (convolution("Conv2d_0a_1x1", 192), convolution("Conv2d_1a_3x3", 320, 2, "valid")),
        (
            *(convolution(name, 192) for name in ("Conv2d_0a_1x1", "Conv2d_0b_1x7", "Conv2d_0c_7x1")),
            convolution("Conv2d_1a_3x3", 192, 2, "valid"),
        ),
        (Pool("MaxPool_1a_3x3", "max"),),
    ),
    "Mixed_7b": _mixed_7("Conv2d_0b_3x1"),
    "Mixed_7c": _mixed_7("Conv2d_0c_3x1"),
}

CAPS: dict[str, int] = {
    "Conv2d_4a_3x3": 144,
    "Mixed_6b": 128,
    "Mixed_6c": 144,
    "Mixed_6d": 144,
    "Mixed_6e": 96,
    "Mixed_7a": 96,
    "Mixed_7b": 192,
    "Mixed_7c": 192,
}
"""The most filters of any convolution of a layer or block: Bruno et al. 2018, Table III, row by row."""

PUBLISHED_DEPTHS: dict[str, int] = {
    "Mixed_6a/Branch_0/Conv2d_1a_1x1": 256,
    "Mixed_6c/Branch_2/Conv2d_0b_7x1": 160,
    "Mixed_6e/Branch_2/Conv2d_0a_1x1": 192,
    "Mixed_7b/Branch_3/Conv2d_0b_1x1": 96,
    "Mixed_7c/Branch_3/Conv2d_0b_1x1": 96,
}
"""The convolutions of the published network that depart from Table III, with their filters, read off its weights."""
