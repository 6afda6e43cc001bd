"""A classifier's SavedModel in TensorFlow: one that `classifier.export` wrote, or the published one of 2018.

Scoring needs none of this (`marco_model.load`); gradients, TensorFlow Lite, and models without an ONNX model do.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from marco_model import (
    classifier,
    errors,
    example_files,
    layers,
    model_directory,
    pixels,
    store,
    training_input,
    weights,
)

_ALLOWED = re.compile(
    "StatefulPartitionedCall|While|If|Assert|.*Variable.*|VarHandleOp|VarIsInitializedOp|DisableCopyOnRead|Resource.*|"
    "TensorArray.*|.*HashTable.*|LookupTable.*|InitializeTableV2|Random.*|TruncatedNormal|Multinomial|"
    "RestoreV2|SaveV2|MergeV2Checkpoints"
)
"""Operations with effects, by TensorFlow's names, that a model may have: on its own variables and tables."""

_READERS = re.compile(
    r"ReadFile|MatchingFiles|ImmutableConst|PyFuncStateless|Debug.*|.*Dataset.*|.*TextFile.*|.*Vocab.*"
)
"""Operations that TensorFlow calls free of effects, though they read files, send data or run Python."""


def load(folder: str | Path) -> Any:
    """Returns the SavedModel in `folder`, local or gs://, as TensorFlow loads it.

    A SavedModel is a program. Raises `InputError`, before it runs, if it has operations beyond those that a classifier
    needs: such as read and write files, or run Python. The classifier of 2018 is known by its checksum.
    """
    path = f"{str(folder).rstrip('/')}/{model_directory.MODEL_FILE}"
    content = store.read_bytes(path, missing=f"no model in {folder}: {model_directory.MODEL_FILE} is missing")
    if hashlib.sha256(content).hexdigest() != model_directory.PUBLISHED_SHA256:
        saved_model = saved_model_pb2.SavedModel()
        with errors.translated(errors.InputError, f"{path} cannot be loaded: it is damaged", Exception):
            saved_model.ParseFromString(content)
        refused = sorted({name for graph in saved_model.meta_graphs for name in _effects(graph)})
        if refused:
            raise errors.InputError(
                f"the model in {folder} is a program that does more than classify: it has the operations "
                f"{', '.join(refused)[:200]}; use a model exported by marco"
            )
    return tf.saved_model.load(str(folder))


def _effects(graph: Any) -> Iterator[str]:
    """Yields the operations of a MetaGraphDef that are refused; writing weights is allowed to its saver alone."""
    library = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    callers: dict[str, set[str]] = {}
    for place, nodes in {"": graph.graph_def.node, **library}.items():
        for node in nodes:
            known = op_def_registry.get(node.op)
            effects = node.op not in library and (known is None or known.is_stateful)
            if _READERS.fullmatch(node.op) or (effects and not _ALLOWED.fullmatch(node.op)):
                yield node.op
            for value in node.attr.values():
                for function in (value.func, *value.list.func):
                    callers.setdefault(function.name, set()).add(place or f"node {node.name}")
    saver = {f"node {graph.saver_def.save_tensor_name.split(':')[0]}"}
    for name, nodes in {"": graph.graph_def.node, **library}.items():
        writes = {node.op for node in nodes} & {"SaveV2", "MergeV2Checkpoints"}
        if writes and (callers.get(name) != saver or name in graph.object_graph_def.concrete_functions):
            yield from writes


class SavedModel:
    """A SavedModel that takes encoded images.

    `folder` holds it, local or gs://. `published`: it is the classifier of 2018, whose scores are sorted and whose
    graph has no gradients. Raises `InputError` if the model takes something other than encoded images, or gives other
    than `classes`.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str], *, published: bool = False) -> None:
        with without_warnings():
            self._saved = load(folder)
        signature = self._saved.signatures.get("serving_default")
        if signature is None or "image_bytes" not in signature.structured_input_signature[1]:
            raise errors.InputError(f"the model in {folder} does not take image_bytes; use one exported by marco")
        if published and signature.structured_outputs["scores"].shape[-1] != len(classes):
            raise errors.InputError(
                f"the model in {folder} has no {model_directory.METADATA} and not MARCO's four classes; use one "
                "exported by marco"
            )
        self._signature = signature
        self._folder = folder
        self._classes = tuple(classes)
        self._published = published

    def score(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns float32 [images, classes] as `LoadedClassifier.score` does, for at least one image."""
        with _decoding(image_bytes):
            outputs = self._signature(image_bytes=tf.constant(list(image_bytes)))
        scores = outputs["scores"].numpy()
        return _reordered(scores, outputs["classes"].numpy(), self._classes) if self._published else scores

    def images(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns float32 [images, size, size, 3] in [-1, 1], as `LoadedClassifier.images` does."""
        with _decoding(image_bytes):
            return self._network.images(tf.constant(list(image_bytes), tf.string)).numpy()

    def embed(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns float32 [images, features], as `LoadedClassifier.embed` does."""
        images = self.images(image_bytes)
        if not len(images):  # The network takes no empty batch.
            return self.embeddings(tf.zeros([1, *images.shape[1:]])).numpy()[:0]
        return self.embeddings(tf.constant(images)).numpy()

    @property
    def logits(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function from what `images` returns to logits, float32 [images, classes], differentiable."""
        return self._network.logits

    @property
    def embeddings(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function from what `images` returns, at least one image, to what `embed` returns."""
        return self._network.embeddings

    @functools.cached_property
    def _network(self) -> Any:
        """A `Classifier`; the published graph is not one, so its weights are put into one.

        Raises `InputError` if the model has nothing but its signatures.
        """
        if not self._published:
            if not (hasattr(self._saved, "logits") and hasattr(self._saved, "embeddings")):
                raise errors.InputError(f"the model in {self._folder} was exported without gradients; export it again")
            return self._saved
        network = weights.published_network(Path(self._folder))
        return classifier.Classifier(layers.fold(network), self._classes, network.input_shape[1])


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps TensorFlow from warning that the published model's variables, of TensorFlow 1, cannot be trained."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _decoding(image_bytes: Sequence[bytes]) -> Iterator[None]:
    """Raises `InputError` for an image that does not decode, in one line and without details of the graph.

    The graph itself fills with grey what is damaged, and a graph of someone else's may have no limits.
    """
    for encoded in image_bytes:
        pixels.check(encoded)
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        text = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]", "", error.message)
        lines = (line.strip() for line in text.splitlines())
        about_the_graph = ("Graph execution error", "Detected at node", "<stack traces", "File ")
        reason = next((line for line in lines if line and not line.startswith(about_the_graph)), "unknown format")
        raise errors.InputError(f"does not decode: {reason}") from None


def _reordered(scores: np.ndarray, names: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Puts scores [n, classes], each row sorted in its own way, into the order of `classes`."""
    order = np.array([name.encode() for name in classes], dtype=object)
    columns = np.argmax(names[:, None, :] == order[None, :, None], axis=2)
    return np.take_along_axis(scores, columns, axis=1)


# TensorFlow Lite, for devices without TensorFlow

TFLITE_MODEL = "assets.extra/model.tflite"
TFLITE_CHECK = "assets.extra/tflite.json"
_TFLITE_BATCH = 8


@dataclasses.dataclass(frozen=True)
class TFLiteAgreement:
    """How the TFLite model's scores compare with the SavedModel's.

    `images` were scored by both, `other_class` of them were given another class, and no score differed by more than
    `largest_difference`.
    """

    images: int
    other_class: int
    largest_difference: float


def convert_to_tflite(classifier: SavedModel) -> bytes:
    """Returns the classifier's network as a TFLite model, float32 as it is.

    Input `images`: float32 [1, size, size, 3] in [-1, 1], as `Classifier.images` returns it. Output: scores, float32
    [1, classes], summing to 1, in the order of the classes in `assets.extra/marco.json`. The batch size is fixed, since
    TensorFlow Lite's fast kernels (XNNPACK) need that. The caller decodes, crops and resizes: TensorFlow Lite has no
    JPEG decoder.
    """
    any_image = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    size = classifier.images([any_image]).shape[1:]
    kept = tf.Module()
    kept.logits = classifier.logits

    @tf.function(input_signature=[tf.TensorSpec([1, *size], tf.float32, name="images")], autograph=False)
    def scores(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(kept.logits(images))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([scores.get_concrete_function()], kept)
    return converter.convert()


def tflite_scorer(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from float32 images [n, size, size, 3] to scores, float32 [n, classes]."""
    with warnings.catch_warnings():
        # TensorFlow 2.21 says that its interpreter will move to another package.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_content=model, num_threads=2)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def score(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        return interpreter.get_tensor(target)[0]

    return lambda images: np.stack([score(image) for image in images])


def compare_with_tflite(classifier: SavedModel, model: bytes, encoded: Iterable[bytes]) -> TFLiteAgreement:
    """Scores encoded images, JPEG or PNG, with both models and compares."""
    score = tflite_scorer(model)
    images, other_class, largest = 0, 0, 0.0
    remaining = iter(encoded)
    while batch := list(itertools.islice(remaining, _TFLITE_BATCH)):
        ours, theirs = classifier.score(batch), score(classifier.images(batch))
        images += len(batch)
        other_class += int((ours.argmax(1) != theirs.argmax(1)).sum())
        largest = max(largest, float(np.abs(ours - theirs).max()))
    return TFLiteAgreement(images, other_class, largest)


def convert_to_checked_tflite(classifier: SavedModel, encoded: Iterable[bytes]) -> tuple[bytes, TFLiteAgreement]:
    """Returns the TFLite model and how it agrees; raises `InputError` if an image is given another class."""
    model = convert_to_tflite(classifier)
    comparison = compare_with_tflite(classifier, model, encoded)
    if comparison.other_class:
        raise errors.InputError(
            f"the TFLite model gives {comparison.other_class} of {comparison.images} images another class than the "
            f"SavedModel (scores differ by up to {comparison.largest_difference:.2g}); do without it, in a run with "
            "export.tflite=false"
        )
    return model, comparison


def add_tflite(directory: str, classes: Sequence[str], examples: Sequence[str]) -> TFLiteAgreement:
    """Adds `assets.extra/model.tflite` and its agreement, `assets.extra/tflite.json`, to an exported model's folder.

    directory: of the SavedModel, local or on gs://. examples: files that training reads, on all of whose images the two
    models must agree. Raises `InputError` as `convert_and_check` does, with nothing written.
    """
    classifier = SavedModel(directory, classes)
    records = training_input.examples(example_files.read_index(examples))
    encoded = (image for image, _ in records.as_numpy_iterator())
    model, comparison = convert_to_checked_tflite(classifier, encoded)
    store.write_bytes(f"{directory}/{TFLITE_MODEL}", model)
    store.write_bytes(f"{directory}/{TFLITE_CHECK}", json.dumps(dataclasses.asdict(comparison), indent=2).encode())
    return comparison
