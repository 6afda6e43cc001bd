"""Every convolution of the MARCO network: its name, kernel, stride and number of filters, in one table.

Names and stock depths are those of TF-Slim's `inception_v3` (Szegedy et al. 2015), oddities included, so that a layer
here is found in the published checkpoint under the same name. `Conv2d_0a_3x3` is MARCO's own: it halves 599x599 to
299x299, the input TF-Slim expects. `CAPS` are the limits of Bruno et al. 2018, Table III.
"""

from __future__ import annotations

from typing import NamedTuple

VARIANTS: tuple[str, ...] = ("paper", "released")
MIN_DEPTH = 16


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
"""Layers one after another; a pair of convolutions stands side by side and is concatenated."""

STEM: Branch = (
    Conv("Conv2d_0a_3x3", (3, 3), 16, stride=2, padding="valid"),
    Conv("Conv2d_1a_3x3", (3, 3), 32, stride=2, padding="valid"),
    Conv("Conv2d_2a_3x3", (3, 3), 32, padding="valid"),
    Conv("Conv2d_2b_3x3", (3, 3), 64),
    Pool("MaxPool_3a_3x3", "max"),
    Conv("Conv2d_3b_1x1", (1, 1), 80, padding="valid"),
    Conv("Conv2d_4a_3x3", (3, 3), 192, padding="valid"),
    Pool("MaxPool_5a_3x3", "max"),
)


def _mixed_5(pooled: int, reduce: str = "Conv2d_0a_1x1", spread: str = "Conv2d_0b_5x5") -> tuple[Branch, ...]:
    return (
        (Conv("Conv2d_0a_1x1", (1, 1), 64),),
        (Conv(reduce, (1, 1), 48), Conv(spread, (5, 5), 64)),
        (Conv("Conv2d_0a_1x1", (1, 1), 64), Conv("Conv2d_0b_3x3", (3, 3), 96), Conv("Conv2d_0c_3x3", (3, 3), 96)),
        (Pool("AvgPool_0a_3x3", "average"), Conv("Conv2d_0b_1x1", (1, 1), pooled)),
    )


def _mixed_6(inner: int) -> tuple[Branch, ...]:
    return (
        (Conv("Conv2d_0a_1x1", (1, 1), 192),),
        (
            Conv("Conv2d_0a_1x1", (1, 1), inner),
            Conv("Conv2d_0b_1x7", (1, 7), inner),
            Conv("Conv2d_0c_7x1", (7, 1), 192),
        ),
        (
            Conv("Conv2d_0a_1x1", (1, 1), inner),
            Conv("Conv2d_0b_7x1", (7, 1), inner),
            Conv("Conv2d_0c_1x7", (1, 7), inner),
            Conv("Conv2d_0d_7x1", (7, 1), inner),
            Conv("Conv2d_0e_1x7", (1, 7), 192),
        ),
        (Pool("AvgPool_0a_3x3", "average"), Conv("Conv2d_0b_1x1", (1, 1), 192)),
    )


def _mixed_7(tall: str) -> tuple[Branch, ...]:
    return (
        (Conv("Conv2d_0a_1x1", (1, 1), 320),),
        (
            Conv("Conv2d_0a_1x1", (1, 1), 384),
            (Conv("Conv2d_0b_1x3", (1, 3), 384), Conv(tall, (3, 1), 384)),
        ),
        (
            Conv("Conv2d_0a_1x1", (1, 1), 448),
            Conv("Conv2d_0b_3x3", (3, 3), 384),
            (Conv("Conv2d_0c_1x3", (1, 3), 384), Conv("Conv2d_0d_3x1", (3, 1), 384)),
        ),
        (Pool("AvgPool_0a_3x3", "average"), Conv("Conv2d_0b_1x1", (1, 1), 192)),
    )


BLOCKS: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64, "Conv2d_0b_1x1", "Conv_1_0c_5x5"),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": (
        (Conv("Conv2d_1a_1x1", (3, 3), 384, stride=2, padding="valid"),),
        (
            Conv("Conv2d_0a_1x1", (1, 1), 64),
            Conv("Conv2d_0b_3x3", (3, 3), 96),
            Conv("Conv2d_1a_1x1", (3, 3), 96, stride=2, padding="valid"),
        ),
        (Pool("MaxPool_1a_3x3", "max"),),
    ),
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
    "Mixed_7a": (
        (Conv("Conv2d_0a_1x1", (1, 1), 192), Conv("Conv2d_1a_3x3", (3, 3), 320, stride=2, padding="valid")),
        (
            Conv("Conv2d_0a_1x1", (1, 1), 192),
            Conv("Conv2d_0b_1x7", (1, 7), 192),
            Conv("Conv2d_0c_7x1", (7, 1), 192),
            Conv("Conv2d_1a_3x3", (3, 3), 192, stride=2, padding="valid"),
        ),
        (Pool("MaxPool_1a_3x3", "max"),),
    ),
    "Mixed_7b": _mixed_7("Conv2d_0b_3x1"),
    "Mixed_7c": _mixed_7("Conv2d_0c_3x1"),
}

CAPS: dict[str, int] = {
    "Conv2d_4a_3x3": 144,
    "Mixed_6a": 256,
    "Mixed_6b": 128,
    "Mixed_6c": 144,
    "Mixed_6d": 144,
    "Mixed_6e": 96,
    "Mixed_7a": 96,
    "Mixed_7b": 192,
    "Mixed_7b/Branch_3": 96,
    "Mixed_7c": 192,
    "Mixed_7c/Branch_3": 96,
}
"""Most filters of any convolution of a layer, block or branch; the longest name that fits holds.

The values were read off the published network, which obeys Table III but for `UNCAPPED`. Where no stock depth was cut
(`Mixed_5*`) there is no cap to be seen.
"""

UNCAPPED: frozenset[str] = frozenset({"Mixed_6c/Branch_2/Conv2d_0b_7x1", "Mixed_6e/Branch_2/Conv2d_0a_1x1"})
"""Convolutions that the published network leaves at their stock depth, against Table III."""


def cap(name: str) -> int | None:
    """Returns the cap on the convolution of this full name, such as `Mixed_6e/Branch_2/Conv2d_0a_1x1`, if any."""
    parts = name.split("/")
    for length in range(len(parts), 0, -1):
        limit = CAPS.get("/".join(parts[:length]))
        if limit is not None:
            return limit
    return None


def depth(name: str, stock: int, variant: str, multiplier: float = 1.0) -> int:
    """Returns the filters of a convolution in `variant`; a multiplier other than 1 scales them as TF-Slim does."""
    limit = None if variant == "released" and name in UNCAPPED else cap(name)
    capped = stock if limit is None else min(stock, limit)
    return max(int(capped * multiplier), MIN_DEPTH)
