"""A Keras network as an ONNX model, which `onnx_network` scores with, and the check that both give the same scores.

Keras's images are channels last and ONNX's channels first: every value of four dimensions is turned here, and what
reshapes one is given it as Keras has it. Only inference is written.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marco_model import errors, onnx_network, pixels

TOLERANCE = 1e-4
"""By which scores may differ from Keras's."""

_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "softmax": "Softmax", "tanh": "Tanh"}
_CHANNELS_FIRST, _CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class UnknownLayer(errors.InputError):
    """The network has a layer that is not known here."""


def convert(network: keras.Model) -> bytes:
    """Returns a network from images to `logits` and `embeddings` as the ONNX model that `onnx_network` describes.

    Raises `UnknownLayer`, and `InputError` if the scores of noise differ by more than `TOLERANCE` from Keras's.
    """
    graph = _Conversion()
    names = {id(network.inputs[0]): "images"}
    for layer in network.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            if len(layer._inbound_nodes) != 1:
                raise UnknownLayer(f"layer {layer.name} is used several times")
            inputs = [names[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
            names[id(layer.output)] = graph.layer(layer, inputs)
    graph.add("Softmax", names[id(network.output["logits"])], axis=1, output="scores")
    graph.add("Identity", names[id(network.output["embeddings"])], output="embeddings")
    _, height, width, channels = network.inputs[0].shape
    outputs = {"scores": network.output["logits"].shape[1], "embeddings": network.output["embeddings"].shape[1]}
    model = graph.model(
        {"images": ["batch", channels, height, width]}, {name: ["batch", size] for name, size in outputs.items()}
    )
    _check(network, model)
    return model


def _check(network: keras.Model, model: bytes) -> None:
    _, height, width, channels = network.inputs[0].shape
    noise = np.random.default_rng(0).uniform(-1, 1, (1, height, width, channels)).astype(np.float32)
    with tf.device("CPU:0"):  # A GPU may round the factors of products to 10 bits.
        expected = tf.nn.softmax(network([noise], training=False)["logits"]).numpy()
    session = onnx_network.session(model, pixels.cores())
    (scores,) = session.run(["scores"], {"images": noise.transpose(_CHANNELS_FIRST)})
    # Weights that are damaged give no numbers in either.
    if not np.allclose(scores, expected, rtol=0, atol=TOLERANCE, equal_nan=True):
        raise errors.InputError(
            f"the ONNX model of network {network.name} scores noise {scores.round(5)} and Keras {expected.round(5)}; "
            "please report it"
        )


class _Conversion(onnx_network.Graph):
    """The graph so far, and a method for each kind of layer."""

    def layer(self, layer: keras.layers.Layer, inputs: list[str]) -> str:
        """Adds a layer, whatever it is, and returns the name of its output."""
        for kind in type(layer).__mro__:
            method: Callable[..., str] | None = getattr(self, f"_{kind.__name__.strip('_').lower()}", None)
            if method and kind is not object:
                return self._activated(layer, method(layer, *inputs))
        raise UnknownLayer(f"layer {layer.name} is a {type(layer).__name__}")

    def _activated(self, layer: keras.layers.Layer, value: str) -> str:
        name = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if name == "linear":
            return value
        if name not in _ACTIVATIONS:
            raise UnknownLayer(f"layer {layer.name} has the activation {name}")
        if name == "softmax":
            return self.add("Softmax", value, axis=1)
        return self.add(_ACTIVATIONS[name], value)

    def _number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def _unchanged(self, layer: keras.layers.Layer, value: str) -> str:
        return value

    _activation = _dropout = _folded = _unchanged

    def _relu(self, layer: keras.layers.ReLU, value: str) -> str:
        if layer.negative_slope or layer.threshold:
            raise UnknownLayer(f"layer {layer.name} is no plain ReLU")
        if layer.max_value is None:
            return self.add("Relu", value)
        limits = [self._number(limit) for limit in (0, layer.max_value)]
        return self.add("Clip", value, *limits)

    def _conv2d(self, layer: keras.layers.Conv2D, value: str) -> str:
        kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias) if layer.use_bias else None
        return self._convolution(layer, value, kernel, layer.groups, bias)

    def _depthwiseconv2d(self, layer: keras.layers.DepthwiseConv2D, value: str) -> str:
        bias = np.asarray(layer.bias) if layer.use_bias else None
        return self._convolution(layer, value, *_depthwise(layer.kernel), bias)

    def _separableconv2d(self, layer: keras.layers.SeparableConv2D, value: str) -> str:
        bias = np.asarray(layer.bias) if layer.use_bias else None
        spread = self._convolution(layer, value, *_depthwise(layer.depthwise_kernel))
        return self.convolution(spread, np.asarray(layer.pointwise_kernel), bias)

    def _convolution(
        self,
        layer: keras.layers.Layer,
        value: str,
        kernel: np.ndarray,
        groups: int,
        bias: np.ndarray | None = None,
    ) -> str:
        strides, dilations = layer.strides, layer.dilation_rate
        reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel.shape[:2], dilations, strict=True)]
        return self.convolution(
            value,
            kernel,
            bias,
            strides=strides,
            padding=_padding(layer, reach),
            dilations=dilations,
            groups=groups,
        )

    def _batchnormalization(self, layer: keras.layers.BatchNormalization, value: str) -> str:
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        gamma = np.asarray(layer.gamma) if layer.scale else np.ones_like(mean)
        beta = np.asarray(layer.beta) if layer.center else np.zeros_like(mean)
        parts = [self.constant(part) for part in (gamma, beta, mean, variance)]
        return self.add("BatchNormalization", value, *parts, epsilon=float(layer.epsilon))

    def _dense(self, layer: keras.layers.Dense, value: str) -> str:
        if len(layer.input.shape) != 2:
            raise UnknownLayer(f"layer {layer.name} is dense over an image")
        product = self.add("MatMul", value, self.constant(np.asarray(layer.kernel)))
        return self.add("Add", product, self.constant(np.asarray(layer.bias))) if layer.use_bias else product

    def _add(self, layer: keras.layers.Add, *values: str) -> str:
        return self.add("Sum", *values)

    def _customscalelayer(self, layer: keras.layers.Layer, value: str, other: str) -> str:
        """Keras's own, of Inception-ResNet-v2: the first input and `scale` times the second."""
        scaled = self.add("Mul", other, self._number(layer.scale))
        return self.add("Add", value, scaled)

    def _concatenate(self, layer: keras.layers.Concatenate, *values: str) -> str:
        if layer.axis not in (-1, len(layer.output.shape) - 1):
            raise UnknownLayer(f"layer {layer.name} concatenates other than channels")
        return self.add("Concat", *values, axis=1)

    def _rescaling(self, layer: keras.layers.Rescaling, value: str) -> str:
        scaled = self.add("Mul", value, self._number(layer.scale))
        return self.add("Add", scaled, self._number(layer.offset))

    def _maxpooling2d(self, layer: keras.layers.MaxPooling2D, value: str) -> str:
        return self._pool("MaxPool", layer, value)

    def _averagepooling2d(self, layer: keras.layers.AveragePooling2D, value: str) -> str:
        return self._pool("AveragePool", layer, value)

    def _pool(self, operator: str, layer: keras.layers.Layer, value: str) -> str:
        padding = _padding(layer, layer.pool_size)
        return self.add(operator, value, kernel_shape=layer.pool_size, strides=layer.strides, pads=padding)

    def _globalaveragepooling2d(self, layer: keras.layers.GlobalAveragePooling2D, value: str) -> str:
        pooled = self.add("GlobalAveragePool", value)
        return pooled if layer.keepdims else self.add("Flatten", pooled)

    def _zeropadding2d(self, layer: keras.layers.ZeroPadding2D, value: str) -> str:
        (top, bottom), (left, right) = layer.padding
        return self.add("Pad", value, self.constant([0, 0, top, left, 0, 0, bottom, right]))

    def _cropping2d(self, layer: keras.layers.Cropping2D, value: str) -> str:
        (top, bottom), (left, right) = layer.cropping
        _, height, width, _ = layer.input.shape
        limits = [[top, left], [height - bottom, width - right], [2, 3]]
        return self.add("Slice", value, *map(self.constant, limits))

    def _reshape(self, layer: keras.layers.Layer, value: str) -> str:
        if len(layer.input.shape) == 4:
            value = self.add("Transpose", value, perm=_CHANNELS_LAST)
        reshaped = self.add("Reshape", value, self.constant([-1, *layer.output.shape[1:]]))
        if len(layer.output.shape) == 4:
            reshaped = self.add("Transpose", reshaped, perm=_CHANNELS_FIRST)
        return reshaped

    _flatten = _reshape


def _depthwise(kernel: Any) -> tuple[np.ndarray, int]:
    """Returns a depthwise kernel [height, width, channels, multiplier] as one of a convolution, and its groups."""
    height, width, channels, multiplier = kernel.shape
    return np.asarray(kernel).reshape(height, width, 1, channels * multiplier), channels


def _padding(layer: keras.layers.Layer, reach: Any) -> list[int]:
    """Returns top, left, bottom, right; `same` puts an odd pixel at the bottom and right, as TensorFlow does."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    before, after = [], []
    for length, size, stride in zip(layer.input.shape[1:3], reach, layer.strides, strict=True):
        margin = max((-(-length // stride) - 1) * stride + size - length, 0)
        before.append(margin // 2)
        after.append(margin - margin // 2)
    return [*before, *after]
