"""Writes a network as an ONNX model, the file that ONNX Runtime reads, without ONNX's own package.

An ONNX model is a protocol buffer (onnx.proto in the ONNX project); the numbers below are its fields. Images are
channels first, float32 [batch, channels, height, width].
"""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

_IR_VERSION, _OPERATOR_SET = 8, 13
_FLOAT, _INT64 = 1, 7
_INT, _INTS = 2, 7
"""Kinds of attributes."""

Attribute = int | float | Sequence[int]
Size = int | str
"""Of a dimension; a name where it may be any number."""


def _varint(value: int) -> bytes:
    digits = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _field(number: int, value: int | str | bytes) -> bytes:
    """Returns one field of a protocol buffer: a number, or text or a message behind its length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _start(number, len(data)) + data


def _start(number: int, length: int) -> bytes:
    """Returns what stands before the `length` bytes of a field."""
    return _varint(number << 3 | 2) + _varint(length)


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        return _field(1, name) + _varint(2 << 3 | 5) + struct.pack("<f", value) + _field(20, _FLOAT)
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, _INT)
    return _field(1, name) + b"".join(_field(8, number) for number in value) + _field(20, _INTS)


def _value(name: str, shape: Sequence[Size]) -> bytes:
    sizes = b"".join(_field(1, _field(2 if isinstance(size, str) else 1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, sizes)))


class Graph:
    """Operators in the order in which they run. Values are named by strings, which `add` and `constant` return."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        # What stands before the numbers of each, and the numbers, which are copied only once, into the file.
        self._constants: list[tuple[bytes, np.ndarray]] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Attribute) -> str:
        """Adds an operator of ONNX and returns the name of its result."""
        name = output or f"value_{len(self._nodes)}"
        self._nodes.append(
            b"".join(_field(1, value) for value in inputs)
            + _field(2, name)
            + _field(4, operator)
            + b"".join(_field(5, _attribute(key, value)) for key, value in attributes.items())
        )
        return name

    def constant(self, values: np.ndarray | Sequence[int]) -> str:
        """Adds weights, float32, or a list of whole numbers."""
        name = f"constant_{len(self._constants)}"
        array = np.asarray(values)
        kind = _INT64 if array.dtype.kind == "i" else _FLOAT
        numbers = np.ascontiguousarray(array, "<i8" if kind == _INT64 else "<f4")
        sizes = b"".join(_field(1, size) for size in array.shape)
        about = sizes + _field(2, kind) + _field(8, name) + _start(9, numbers.nbytes)
        self._constants.append((_start(5, len(about) + numbers.nbytes) + about, numbers.reshape(-1)))
        return name

    def convolution(
        self,
        images: str,
        kernel: np.ndarray,
        bias: np.ndarray | None = None,
        *,
        strides: tuple[int, int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilations: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> str:
        """Adds a convolution.

        `kernel`: float32 [height, width, channels of a group, filters]. `padding`: top, left, bottom, right.
        """
        inputs = [self.constant(kernel.transpose(3, 2, 0, 1))] + ([] if bias is None else [self.constant(bias)])
        return self.add("Conv", images, *inputs, strides=strides, pads=padding, dilations=dilations, group=groups)

    def model(self, inputs: Mapping[str, Sequence[Size]], outputs: Mapping[str, Sequence[Size]]) -> bytes:
        """Returns the model's file. `inputs` and `outputs` are float32 values with their shapes, by name."""
        graph: list[bytes | memoryview] = [
            *(_field(1, node) for node in self._nodes),
            _field(2, "marco"),
            *(part for about, numbers in self._constants for part in (about, numbers.data.cast("B"))),
            *(_field(11, _value(name, shape)) for name, shape in inputs.items()),
            *(_field(12, _value(name, shape)) for name, shape in outputs.items()),
        ]
        about = _field(1, _IR_VERSION) + _field(2, "marco-pipeline")
        return b"".join([about, _start(7, sum(map(len, graph))), *graph, _field(8, _field(2, _OPERATOR_SET))])
