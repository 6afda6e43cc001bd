"""Inception-v3 for MARCO in Keras 3, built from `inception_table`.

The network is a pure function under `Model.stateless_call`, and free of TensorFlow, so that any Keras backend runs it.
Its layers carry TF-Slim's names with `-` for `/`, which Keras does not allow; `slim_name` gives a variable's name in
the published checkpoint.
"""

from typing import Any, NamedTuple

import keras

from marco_model import errors, inception_table as table, labels, layers

VARIANTS: tuple[str, ...] = ("paper", "released")
MIN_DEPTH = 16

SMALLEST_INPUT = 151
"""Pixels; with fewer the last grid reduction, `Mixed_7a`, has no 3x3 window left."""


def filters(name: str, stock: int, variant: str, multiplier: float = 1.0) -> int:
    """Returns the number of filters of the convolution `name`, such as `Mixed_6e/Branch_2/Conv2d_0a_1x1`, in `variant`.

    `stock`: those of Szegedy et al. 2015. `multiplier` scales the number as TF-Slim does.
    """
    depth = min(stock, table.CAPS.get(name.partition("/")[0], stock))
    if variant == "released":
        depth = table.PUBLISHED_DEPTHS.get(name, depth)
    return max(int(depth * multiplier), MIN_DEPTH)


class _Builder(NamedTuple):
    """Adds layers to a graph under TF-Slim's names; `prefix` ends in `-` or is empty."""

    variant: str
    depth_multiplier: float
    batch_norm_momentum: float

    def conv(self, x: Any, conv: table.Conv, prefix: str = "", stddev: float = 0.1) -> Any:
        """Convolution without bias, batch norm with beta only, ReLU."""
        name = prefix + conv.name
        depth = filters(name.replace("-", "/"), conv.depth, self.variant, self.depth_multiplier)
        initializer = keras.initializers.TruncatedNormal(stddev=stddev)
        x = keras.layers.Conv2D(
            depth, conv.kernel, conv.stride, conv.padding, use_bias=False, kernel_initializer=initializer, name=name
        )(x)
        momentum = self.batch_norm_momentum
        normalize = layers.BatchNormalization(
            scale=False, epsilon=table.BATCH_NORM_EPSILON, momentum=momentum, name=f"{name}-BatchNorm"
        )
        return keras.layers.ReLU(name=f"{name}-Relu")(normalize(x))

    def branch(self, x: Any, branch: table.Branch, prefix: str = "") -> Any:
        """Layers in sequence; the outputs of a pair of convolutions are concatenated."""
        for layer in branch:
            if isinstance(layer, table.Conv):
                x = self.conv(x, layer, prefix)
            elif isinstance(layer, table.Pool):
                x = _pool(x, layer, prefix)
            else:
                x = keras.layers.Concatenate(name=f"{prefix}concat")([self.conv(x, conv, prefix) for conv in layer])
        return x

    def block(self, x: Any, name: str) -> Any:
        """A `Mixed` block: all branches from one input, concatenated."""
        branches = [
            self.branch(x, branch, f"{name}-Branch_{index}-") for index, branch in enumerate(table.BLOCKS[name])
        ]
        return keras.layers.Concatenate(name=name)(branches)

    def auxiliary_logits(self, x: Any, num_classes: int) -> Any:
        """The head on `Mixed_6e` that only training uses. Kernels shrink with small inputs, as TF-Slim's do."""
        pool = min(5, x.shape[1])
        x = keras.layers.AveragePooling2D(pool, strides=3, padding="valid", name="AuxLogits-AvgPool_1a_5x5")(x)
        x = self.conv(x, table.convolution("Conv2d_1b_1x1", 128), "AuxLogits-")
        size = min(5, x.shape[1])
        x = self.conv(x, table.convolution(f"Conv2d_2a_{size}x{size}", 768, padding="valid"), "AuxLogits-", stddev=0.01)
        return _logits(x, num_classes, "AuxLogits-Conv2d_2b_1x1", "auxiliary_logits", stddev=0.001)


def _pool(x: Any, pool: table.Pool, prefix: str) -> Any:
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
    x = builder.branch(images, table.STEM)
    outputs = {}
    for name in table.BLOCKS:
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
