"""The classifier published in 2018 as an ONNX model, made from the weights of its checkpoint without TensorFlow.

It has 8.9 million weights, which takes a fraction of a second, so that nothing is kept between two runs.
"""

from pathlib import Path

import numpy as np

from marco_model import inception_table as table, labels, onnx_graph, tensor_bundle

INPUT_SIZE = 599
_LOGITS = "Inception/Logits/Conv2d_1c_1x1"


class _Network:
    """The network as `inception_v3.inception_v3` builds it, with batch norms folded into the convolutions."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.graph = onnx_graph.Graph()
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
        convolved = self.graph.convolution(
            images, kernel, beta - scale * mean, strides=(layer.stride, layer.stride), padding=[*margins, *margins]
        )
        return self.graph.add("Relu", convolved)

    def branch(self, images: str, branch: table.Branch, prefix: str = "") -> str:
        for layer in branch:
            if isinstance(layer, table.Conv):
                images = self.convolve(images, layer, prefix)
            elif isinstance(layer, table.Pool):
                images = self._pool(images, layer)
            else:
                images = self.graph.add("Concat", *(self.convolve(images, conv, prefix) for conv in layer), axis=1)
        return images

    def _pool(self, images: str, layer: table.Pool) -> str:
        if layer.kind == "max":
            return self.graph.add("MaxPool", images, kernel_shape=(3, 3), strides=(2, 2))
        return self.graph.add("AveragePool", images, kernel_shape=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1))

    def head(self, images: str) -> None:
        pooled = self.graph.add("GlobalAveragePool", images)
        kernel, bias = (self._weights[f"{_LOGITS}/{part}"] for part in ("weights", "biases"))
        logits = self.graph.add("Flatten", self.graph.convolution(pooled, kernel, bias))
        self.graph.add("Softmax", logits, axis=1, output="scores")
        self.graph.add("Flatten", pooled, output="embeddings")


def onnx_model(saved_model: Path) -> bytes:
    """Returns the published classifier in the folder `saved_model` as an ONNX model that `onnx_network` describes.

    Raises `InputError` if its weights cannot be read.
    """
    weights = tensor_bundle.read(saved_model / "variables" / "variables")
    network = _Network(weights)
    images = network.branch("images", table.STEM)
    for name, branches in table.BLOCKS.items():
        outputs = [network.branch(images, branch, f"{name}/Branch_{index}/") for index, branch in enumerate(branches)]
        images = network.graph.add("Concat", *outputs, axis=1)
    network.head(images)
    features = weights[f"{_LOGITS}/weights"].shape[2]
    return network.graph.model(
        {"images": ["batch", 3, INPUT_SIZE, INPUT_SIZE]},
        {"scores": ["batch", len(labels.CLASSES)], "embeddings": ["batch", features]},
    )
