"""The classifier published in 2018 as an ONNX model, made from the weights of its checkpoint without TensorFlow.

It has 8.9 million weights, which takes a fraction of a second, so that nothing is kept between two runs.

A checkpoint is an index and one file with the tensors' bytes. The index is a sorted string table as LevelDB writes it,
in blocks that Snappy may have compressed, from a tensor's name to a `BundleEntryProto`
(tensorflow/core/protobuf/tensor_bundle.proto and tensorflow/core/lib/io/format.h; Snappy's format_description.txt).
Only what such files hold is understood: one data file and float32 tensors.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from marco_model import errors, inception_table as table, labels, onnx_network

INPUT_SIZE = 599
_LOGITS = "Inception/Logits/Conv2d_1c_1x1"
_FOOTER, _MAGIC = 48, bytes.fromhex("57fb808b247547db")
_FLOAT32 = 1


class _Network(onnx_network.Graph):
    """The network as `inception_v3.inception_v3` builds it, with batch norms folded into the convolutions."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self._weights = weights

    def convolve(self, images: str, layer: table.Conv, prefix: str) -> str:
        name = f"Inception/{prefix}{layer.name}"
        mean, variance, beta = (
            self._weights[f"{name}/BatchNorm/{part}"].astype(np.float64)
            for part in ("moving_mean", "moving_variance", "beta")
        )
        scale = 1 / np.sqrt(variance + table.BATCH_NORM_EPSILON)
        kernel = self._weights[f"{name}/weights"] * scale.astype(np.float32)
        margins = [0, 0] if layer.padding == "valid" else [(length - 1) // 2 for length in layer.kernel]
        convolved = self.convolution(
            images, kernel, beta - scale * mean, strides=(layer.stride, layer.stride), padding=[*margins, *margins]
        )
        return self.add("Relu", convolved)

    def branch(self, images: str, branch: table.Branch, prefix: str = "") -> str:
        for layer in branch:
            if isinstance(layer, table.Conv):
                images = self.convolve(images, layer, prefix)
            elif isinstance(layer, table.Pool):
                images = self._pool(images, layer)
            else:
                images = self.add("Concat", *(self.convolve(images, conv, prefix) for conv in layer), axis=1)
        return images

    def _pool(self, images: str, layer: table.Pool) -> str:
        if layer.kind == "max":
            return self.add("MaxPool", images, kernel_shape=(3, 3), strides=(2, 2))
        return self.add("AveragePool", images, kernel_shape=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1))

    def head(self, images: str) -> None:
        pooled = self.add("GlobalAveragePool", images)
        kernel, bias = (self._weights[f"{_LOGITS}/{part}"] for part in ("weights", "biases"))
        logits = self.add("Flatten", self.convolution(pooled, kernel, bias))
        self.add("Softmax", logits, axis=1, output="scores")
        self.add("Flatten", pooled, output="embeddings")


def onnx_model(saved_model: Path) -> bytes:
    """Returns the published classifier in the folder `saved_model` as an ONNX model that `onnx_network` describes.

    Raises `InputError` if its weights cannot be read.
    """
    weights = read_checkpoint(saved_model / "variables" / "variables")
    network = _Network(weights)
    images = network.branch("images", table.STEM)
    for name, branches in table.BLOCKS.items():
        outputs = [network.branch(images, branch, f"{name}/Branch_{index}/") for index, branch in enumerate(branches)]
        images = network.add("Concat", *outputs, axis=1)
    network.head(images)
    features = weights[f"{_LOGITS}/weights"].shape[2]
    return network.model(
        {"images": ["batch", 3, INPUT_SIZE, INPUT_SIZE]},
        {"scores": ["batch", len(labels.CLASSES)], "embeddings": ["batch", features]},
    )


# Checkpoints


def read_checkpoint(prefix: Path) -> dict[str, np.ndarray]:
    """Returns the float32 tensors of the checkpoint `prefix`, such as `savedmodel/variables/variables`, by name.

    They are mapped into memory and read when they are used. Raises `InputError` if the files are missing or damaged.
    """
    message = f"the checkpoint {prefix} cannot be read ({{}}); install its package again"
    with errors.translated(errors.InputError, message, OSError, LookupError, TypeError, ValueError, struct.error):
        index = prefix.with_name(f"{prefix.name}.index").read_bytes()
        data = np.memmap(prefix.with_name(f"{prefix.name}.data-00000-of-00001"), mode="r")
        footer = index[-_FOOTER:]
        if not footer.endswith(_MAGIC):
            raise ValueError("the index is not a table")
        _, position = _block_handle(footer, 0)
        (offset, size), _ = _block_handle(footer, position)
        tensors = {}
        for _, handle in _entries(index, offset, size):
            for name, entry in _entries(index, *_block_handle(handle, 0)[0]):
                fields = dict(_fields(entry))
                if name and fields.get(1) == _FLOAT32:
                    start = fields.get(4, 0)
                    values = data[start : start + fields[5]].view("<f4")
                    tensors[name.decode()] = values.reshape(_shape(fields.get(2, b"")))
        return tensors


def _shape(message: bytes) -> list[int]:
    """Returns the sizes of a `TensorShapeProto`."""
    return [dict(_fields(dimension)).get(1, 0) for number, dimension in _fields(message) if number == 2]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns a number in base 128, least significant digits first, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields the number and value of each field of a protocol buffer: an int, or bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
        else:
            length = {1: 8, 5: 4}.get(tag & 7)
            if length is None:
                length, position = _varint(message, position)
            yield tag >> 3, message[position : position + length]
            position += length


def _block_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Returns the offset and size of a block, and the position behind its handle."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return (offset, size), position


def _entries(index: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a block; a key is written as what it adds to the one before."""
    block = index[offset : offset + size]
    if index[offset + size] == 1:
        block = _unsnap(block)
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 * (restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        added, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + added]
        position += added
        yield key, block[position : position + length]
        position += length


def _unsnap(data: bytes) -> bytes:
    """Returns what Snappy compressed: literals, and copies of what came before."""
    size, position = _varint(data, 0)
    plain = bytearray()
    while position < len(data):
        tag = data[position]
        position += 1
        kind, length = tag & 3, (tag >> 2) + 1
        if kind == 0:
            if length > 60:
                width = length - 60
                length = int.from_bytes(data[position : position + width], "little") + 1
                position += width
            plain += data[position : position + length]
            position += length
            continue
        if kind == 1:
            length = (tag >> 2 & 7) + 4
            distance = (tag >> 5) << 8 | data[position]
            position += 1
        else:
            width = 2 if kind == 2 else 4
            distance = int.from_bytes(data[position : position + width], "little")
            position += width
        for _ in range(length):  # A copy may reach into itself.
            plain.append(plain[-distance])
    if len(plain) != size:
        raise ValueError(f"{len(plain)} bytes instead of {size}")
    return bytes(plain)
