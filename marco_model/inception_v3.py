"""Inception-v3 for MARCO in Keras 3: the table of its convolutions, and the network built from it.

Names and stock depths are those of TF-Slim's `inception_v3` (Szegedy et al. 2015), oddities included, so that a layer
has the same name here as in the published checkpoint. `Conv2d_0a_3x3` is MARCO's own: it halves 599x599 to 299x299, the
input that TF-Slim expects. `CAPS` are the limits of Bruno et al. 2018, Table III; `PUBLISHED_DEPTHS` are the five
convolutions in which the published network departs from them.

The network is a pure function under `Model.stateless_call`, and free of TensorFlow, so that any Keras backend runs it.
Its layers carry TF-Slim's names with `-` for `/`, which Keras does not allow; `slim_name` gives a variable's name in
the published checkpoint.
"""

from typing import Any, NamedTuple

import keras

from marco_model import batch_norm, errors, labels

VARIANTS: tuple[str, ...] = ("paper", "released")
MIN_DEPTH = 16

SMALLEST_INPUT = 151
"""Pixels; with fewer the last grid reduction, `Mixed_7a`, has no 3x3 window left."""

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


def _conv(name: str, depth: int, stride: int = 1, padding: str = "same", kernel: str = "") -> Conv:
    """Returns a convolution with the kernel that `kernel` or else its name ends in: `1x7` is (1, 7)."""
    height, width = (kernel or name)[-3:].split("x")
    return Conv(name, (int(height), int(width)), depth, stride, padding)


STEM: Branch = (
    _conv("Conv2d_0a_3x3", 16, 2, "valid"),
    _conv("Conv2d_1a_3x3", 32, 2, "valid"),
    _conv("Conv2d_2a_3x3", 32, 1, "valid"),
    _conv("Conv2d_2b_3x3", 64),
    Pool("MaxPool_3a_3x3", "max"),
    _conv("Conv2d_3b_1x1", 80, 1, "valid"),
    _conv("Conv2d_4a_3x3", 192, 1, "valid"),
    Pool("MaxPool_5a_3x3", "max"),
)


def _mixed_5(pooled: int, reduce: str = "Conv2d_0a_1x1", spread: str = "Conv2d_0b_5x5") -> tuple[Branch, ...]:
    return (
        (_conv("Conv2d_0a_1x1", 64),),
        (_conv(reduce, 48), _conv(spread, 64)),
        (_conv("Conv2d_0a_1x1", 64), _conv("Conv2d_0b_3x3", 96), _conv("Conv2d_0c_3x3", 96)),
        (Pool("AvgPool_0a_3x3", "average"), _conv("Conv2d_0b_1x1", pooled)),
    )


def _mixed_6(inner: int) -> tuple[Branch, ...]:
    return (
        (_conv("Conv2d_0a_1x1", 192),),
        (_conv("Conv2d_0a_1x1", inner), _conv("Conv2d_0b_1x7", inner), _conv("Conv2d_0c_7x1", 192)),
        (
            *(_conv(name, inner) for name in ("Conv2d_0a_1x1", "Conv2d_0b_7x1", "Conv2d_0c_1x7", "Conv2d_0d_7x1")),
            _conv("Conv2d_0e_1x7", 192),
        ),
        (Pool("AvgPool_0a_3x3", "average"), _conv("Conv2d_0b_1x1", 192)),
    )


def _mixed_7(tall: str) -> tuple[Branch, ...]:
    side_by_side = (_conv("Conv2d_0c_1x3", 384), _conv("Conv2d_0d_3x1", 384))
    return (
        (_conv("Conv2d_0a_1x1", 320),),
        (_conv("Conv2d_0a_1x1", 384), (_conv("Conv2d_0b_1x3", 384), _conv(tall, 384))),
        (_conv("Conv2d_0a_1x1", 448), _conv("Conv2d_0b_3x3", 384), side_by_side),
        (Pool("AvgPool_0a_3x3", "average"), _conv("Conv2d_0b_1x1", 192)),
    )


BLOCKS: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64, "Conv2d_0b_1x1", "Conv_1_0c_5x5"),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": (
        # Named 1x1, these two are 3x3.
        (_conv("Conv2d_1a_1x1", 384, 2, "valid", kernel="3x3"),),
        (_conv("Conv2d_0a_1x1", 64), _conv("Conv2d_0b_3x3", 96), _conv("Conv2d_1a_1x1", 96, 2, "valid", kernel="3x3")),
        (Pool("MaxPool_1a_3x3", "max"),),
    ),
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
    "Mixed_7a": (
        (_conv("Conv2d_0a_1x1", 192), _conv("Conv2d_1a_3x3", 320, 2, "valid")),
        (
            *(_conv(name, 192) for name in ("Conv2d_0a_1x1", "Conv2d_0b_1x7", "Conv2d_0c_7x1")),
            _conv("Conv2d_1a_3x3", 192, 2, "valid"),
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


def filters(name: str, stock: int, variant: str, multiplier: float = 1.0) -> int:
    """Returns the number of filters of the convolution `name`, such as `Mixed_6e/Branch_2/Conv2d_0a_1x1`, in `variant`.

    `stock`: those of Szegedy et al. 2015. `multiplier` scales the number as TF-Slim does.
    """
    depth = min(stock, CAPS.get(name.partition("/")[0], stock))
    if variant == "released":
        depth = PUBLISHED_DEPTHS.get(name, depth)
    return max(int(depth * multiplier), MIN_DEPTH)


class _Builder(NamedTuple):
    """Adds layers to a graph under TF-Slim's names; `prefix` ends in `-` or is empty."""

    variant: str
    depth_multiplier: float
    batch_norm_momentum: float

    def conv(self, x: Any, conv: Conv, prefix: str = "", stddev: float = 0.1) -> Any:
        """Convolution without bias, batch norm with beta only, ReLU."""
        name = prefix + conv.name
        depth = filters(name.replace("-", "/"), conv.depth, self.variant, self.depth_multiplier)
        initializer = keras.initializers.TruncatedNormal(stddev=stddev)
        x = keras.layers.Conv2D(
            depth, conv.kernel, conv.stride, conv.padding, use_bias=False, kernel_initializer=initializer, name=name
        )(x)
        momentum = self.batch_norm_momentum
        normalize = batch_norm.BatchNormalization(
            scale=False, epsilon=BATCH_NORM_EPSILON, momentum=momentum, name=f"{name}-BatchNorm"
        )
        return keras.layers.ReLU(name=f"{name}-Relu")(normalize(x))

    def branch(self, x: Any, branch: Branch, prefix: str = "") -> Any:
        """Layers in sequence; the outputs of a pair of convolutions are concatenated."""
        for layer in branch:
            if isinstance(layer, Conv):
                x = self.conv(x, layer, prefix)
            elif isinstance(layer, Pool):
                x = _pool(x, layer, prefix)
            else:
                x = keras.layers.Concatenate(name=f"{prefix}concat")([self.conv(x, conv, prefix) for conv in layer])
        return x

    def block(self, x: Any, name: str) -> Any:
        """A `Mixed` block: all branches from one input, concatenated."""
        branches = [self.branch(x, branch, f"{name}-Branch_{index}-") for index, branch in enumerate(BLOCKS[name])]
        return keras.layers.Concatenate(name=name)(branches)

    def auxiliary_logits(self, x: Any, num_classes: int) -> Any:
        """The head on `Mixed_6e` that only training uses. Kernels shrink with small inputs, as TF-Slim's do."""
        pool = min(5, x.shape[1])
        x = keras.layers.AveragePooling2D(pool, strides=3, padding="valid", name="AuxLogits-AvgPool_1a_5x5")(x)
        x = self.conv(x, _conv("Conv2d_1b_1x1", 128), "AuxLogits-")
        size = min(5, x.shape[1])
        x = self.conv(x, _conv(f"Conv2d_2a_{size}x{size}", 768, padding="valid"), "AuxLogits-", stddev=0.01)
        return _logits(x, num_classes, "AuxLogits-Conv2d_2b_1x1", "auxiliary_logits", stddev=0.001)


def _pool(x: Any, pool: Pool, prefix: str) -> Any:
    name = prefix + pool.name
    if pool.kind == "max":
        return keras.layers.MaxPooling2D(3, strides=2, padding="valid", name=name)(x)
    return keras.layers.AveragePooling2D(3, strides=1, padding="same", name=name)(x)


def _logits(x: Any, num_classes: int, name: str, output: str, stddev: float) -> Any:
    """Averages what is left of the grid (8x8 at 599 pixels), then a 1x1 convolution with bias, in float32."""
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{output}-AvgPool")(x)
    initializer = keras.initializers.TruncatedNormal(stddev=stddev)
    x = keras.layers.Conv2D(num_classes, 1, kernel_initializer=initializer, dtype="float32", name=name)(x)
    return keras.layers.Reshape((num_classes,), dtype="float32", name=output)(x)


def inception_v3(
    *,
    variant: str,
    input_size: int = 599,
    num_classes: int = len(labels.CLASSES),
    depth_multiplier: float = 1.0,
    auxiliary: bool = False,
    batch_norm_momentum: float = 0.9997,
) -> keras.Model:
    """Returns the untrained network.

    Input `images`: float32 [batch, input_size, input_size, 3] in [-1, 1]. Output: logits, float32 [batch, num_classes];
    with `auxiliary` a dict of `logits` and `auxiliary_logits`, both of that shape.

    `variant` is `paper` (Table III) or `released` (the published weights fit it). `depth_multiplier`
    scales every depth but the logits' as TF-Slim does, never below 16 filters. There is no dropout, as in the paper.

    Raises InputError for an unknown variant, an input below 151 pixels, or numbers that are not positive.
    """
    if variant not in VARIANTS:
        raise errors.InputError(f"unknown network variant {variant!r}; use one of {', '.join(VARIANTS)}")
    if input_size < SMALLEST_INPUT:
        raise errors.InputError(
            f"input size {input_size} is too small for Inception-v3; use at least {SMALLEST_INPUT} pixels"
        )
    if depth_multiplier <= 0:
        raise errors.InputError(f"depth_multiplier is {depth_multiplier}; it must be above 0")
    if num_classes < 2:
        raise errors.InputError(f"num_classes is {num_classes}; a classifier needs at least 2")
    builder = _Builder(variant, depth_multiplier, batch_norm_momentum)
    images = keras.Input((input_size, input_size, 3), name="images")
    x = builder.branch(images, STEM)
    outputs = {}
    for name in BLOCKS:
        x = builder.block(x, name)
        if auxiliary and name == "Mixed_6e":
            outputs["auxiliary_logits"] = builder.auxiliary_logits(x, num_classes)
    outputs["logits"] = _logits(x, num_classes, "Logits-Conv2d_1c_1x1", "logits", stddev=0.1)
    return keras.Model(images, outputs if auxiliary else outputs["logits"], name=f"marco_{variant}")


_SLIM_WEIGHTS = {"kernel": "weights", "bias": "biases"}


def slim_name(variable: keras.Variable) -> str:
    """Returns the name that a variable of `inception_v3` has in the published TF-Slim checkpoint."""
    layer, _, weight = variable.path.rpartition("/")
    return f"Inception/{layer.replace('-', '/')}/{_SLIM_WEIGHTS.get(weight, weight)}"
