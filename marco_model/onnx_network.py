"""A network as an ONNX model: how it runs on ONNX Runtime, and how its file is written without ONNX's own package.

`OnnxNetwork` is the engine that scores, with or without TensorFlow installed.

The model maps `images`, float32 [batch, 3, size, size] in [-1, 1] as `pixels.evaluation_image` makes them, to `scores`,
float32 [batch, classes], each row summing to 1, and `embeddings`, float32 [batch, features].
"""

import contextlib
import functools
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from marco_model import errors, novelty, pixels, time_course

if TYPE_CHECKING:
    import onnxruntime

Result = TypeVar("Result")

MODEL = "assets.extra/model.onnx"
"""The ONNX model in an exported classifier's folder."""

VIEWS = (1, 2, 4, 8)
"""Of how many views of an image scores may be the mean."""


def views(image: np.ndarray, count: int) -> list[np.ndarray]:
    """Returns the first `count` of a square image's eight symmetries, in an order in which 1, 2, 4 and 8 are groups.

    Drops have no up or down, and plates come turned: the paper's classifier is trained on flips and quarter turns
    (Bruno et al. 2018, "Image preprocessing"). `image`: [channels, size, size]. The views: as it is, mirrored left to
    right, mirrored top to bottom, half a turn, and these four with rows and columns exchanged.
    """
    mirrored = [image, image[:, :, ::-1], image[:, ::-1], image[:, ::-1, ::-1]]
    return [*mirrored, *(view.transpose(0, 2, 1) for view in mirrored)][:count]


class OnnxNetwork:
    """A network, and how encoded images become its input.

    A few images are scored one after another, each by all threads, or by the calling thread while other calls run. As
    many images as there are threads, or more, are decoded and scored side by side, one thread for each, which is less
    work in all. Each image passes the network alone, so that memory does not grow with their number.

    `model`: the file, or its content. `preparation`: how an encoded image becomes the network's input. `threads`: 0 for
    one per core. `average`: outputs are the mean over so many `views` of an image.
    """

    def __init__(
        self,
        model: Path | bytes,
        preparation: pixels.Preparation,
        threads: int = 0,
        average: int = 1,
    ) -> None:
        self._model = model
        self._average = average
        self.preparation = preparation
        self._threads = threads or pixels.cores()
        self._calls = 0
        self._counting = threading.Lock()

    def images(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Returns the network's input, float32 [images, 3, size, size]; raises `InputError` if one does not decode."""
        shape = (0, 3, self.preparation.input_size, self.preparation.input_size)
        return np.stack([self.preparation(image) for image in encoded]) if encoded else np.zeros(shape, np.float32)

    def outputs(self, name: str, images: Sequence[bytes | np.ndarray]) -> np.ndarray:
        """Returns the output `name`, float32 [images, values], for encoded images, or for what `preparation` returned.

        Raises `InputError` if one of them does not decode, or if ONNX Runtime cannot read the model.
        """
        rows = self._map(lambda session, image: _means(self._by_view(session, [name], image))[0], images)
        if rows:
            return np.concatenate(rows)
        width = next(output.shape[1] for output in self._whole.get_outputs() if output.name == name)
        return np.zeros((0, width), np.float32)

    def described(
        self,
        images: Sequence[bytes | np.ndarray],
        reference: novelty.Reference | None = None,
        course: time_course.TimeCourse | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns scores, float32 [images, classes], novelties, float32 [images], and views, float32 [images, values].

        Novelties are 0 without a `reference`, else those of the image as it is. Views are what the `course` takes,
        without one the network's features.
        Takes at least one image, as `outputs` does, and raises what it does.
        """

        def run(
            session: "onnxruntime.InferenceSession", image: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            by_view = self._by_view(session, ["scores", "embeddings"], image)
            scores, embeddings = _means(by_view)
            unlike = np.zeros(1, np.float32)
            if reference:  # Its limits are those of single views: means of several lie closer together.
                unlike = reference.novelty(by_view[0][1], novelty.picture_statistics(image)[None])
            return scores, unlike, course.project(embeddings) if course else embeddings

        scores, novelties, views = zip(*self._map(run, images), strict=True)
        return np.concatenate(scores), np.concatenate(novelties), np.concatenate(views)

    def features_and_statistics(self, images: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns what `novelty.fit` takes of encoded images, at least one: features and picture statistics.

        Raises what `outputs` does.
        """

        def run(session: "onnxruntime.InferenceSession", image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            (features,) = _means(self._by_view(session, ["embeddings"], image))
            return features, novelty.picture_statistics(image)[None]

        features, statistics = zip(*self._map(run, images), strict=True)
        return np.concatenate(features), np.concatenate(statistics)

    def _map(
        self,
        run: Callable[["onnxruntime.InferenceSession", np.ndarray], Result],
        images: Sequence[bytes | np.ndarray],
    ) -> list[Result]:
        """Returns what `run` makes of each image's network input."""

        def prepare_and_run(session: "onnxruntime.InferenceSession", image: bytes | np.ndarray) -> Result:
            return run(session, image if isinstance(image, np.ndarray) else self.preparation(image))

        # A folder's last few images need no second session.
        only_single = "_single" in vars(self) and "_whole" not in vars(self)
        if self._threads > 1 and (len(images) >= self._threads or only_single):
            with ThreadPoolExecutor(self._threads, thread_name_prefix="network") as pool:
                return list(pool.map(functools.partial(prepare_and_run, self._single), images))
        with self._counted() as alone:
            return [prepare_and_run(self._whole if alone else self._single, image) for image in images]

    @contextlib.contextmanager
    def _counted(self) -> Iterator[bool]:
        """Yields whether no other call runs; counts this one meanwhile."""
        with self._counting:
            self._calls += 1
            alone = self._calls == 1
        try:
            yield alone
        finally:
            with self._counting:
                self._calls -= 1

    def _by_view(
        self, session: "onnxruntime.InferenceSession", names: list[str], image: np.ndarray
    ) -> list[list[np.ndarray]]:
        """Returns outputs of each view of a network input, each [1, values]."""
        # One after another, so that memory does not grow with their number.
        return [
            session.run(names, {"images": np.ascontiguousarray(view)[None]}) for view in views(image, self._average)
        ]

    @functools.cached_property
    def _whole(self) -> "onnxruntime.InferenceSession":
        """Runs one image at a time with all threads."""
        return self._single if self._threads == 1 else self._session(self._threads)

    @functools.cached_property
    def _single(self) -> "onnxruntime.InferenceSession":
        """Runs each call in the thread that makes it."""
        return self._session(1)

    def _session(self, threads: int) -> "onnxruntime.InferenceSession":
        name = "made of the published weights" if isinstance(self._model, bytes) else str(self._model)
        with errors.translated(errors.InputError, f"the ONNX model {name} cannot be read ({{}})", Exception):
            return session(self._model, threads)


def _means(by_view: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Returns the mean of each output over the views."""
    return [np.mean(values, axis=0) for values in zip(*by_view, strict=True)]


def session(model: Path | bytes, threads: int) -> "onnxruntime.InferenceSession":
    """Returns the model, from a file or its content, ready to run on the processor with so many threads."""
    # ONNX Runtime 1.29 and later keep a device's id and send events to their maker unless this is set before the import
    # (microsoft/onnxruntime, pull request 27379); Windows has the function.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    onnxruntime.set_default_logger_severity(3)  # Without warnings, such as of a machine without a GPU.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


# The file: a protocol buffer (onnx.proto in the ONNX project); the numbers below are its fields.

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
    """Operators in the order in which they run. Values are named by strings, which `add` and `constant` return.

    Images are channels first, float32 [batch, channels, height, width].
    """

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
