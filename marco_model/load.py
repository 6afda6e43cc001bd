"""Opens a classifier on disk: a SavedModel that `export` wrote, or the published one of 2018."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from marco_model.batch_norm import fold
from marco_model.calibration import calibrated
from marco_model.classifier import Classifier
from marco_model.errors import InputError
from marco_model.inception_v3 import inception_v3
from marco_model.labels import CLASSES
from marco_model.model_directory import METADATA, PUBLISHED_NAME, read_metadata, saved_model_directory
from marco_model.weights import load_published_weights


class LoadedClassifier:
    """A classifier ready to score.

    `classes`: names in the order of the scores. `name`: what to call it in results. `temperature`: what makes scores
    probabilities; 1.0 where none was fitted, as for the published model. `metadata`: what `export` was told.
    """

    def __init__(
        self, saved: Any, name: str, classes: Sequence[str], metadata: dict[str, Any], directory: Path
    ) -> None:
        self._saved = saved
        self._directory = directory
        self._signature = saved.signatures["serving_default"]
        self._in_order = bool(metadata)
        self.name = name
        self.classes = tuple(classes)
        self.metadata = metadata
        self.temperature = float(metadata.get("temperature", 1.0))

    def score(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Scores encoded images, JPEG or PNG; returns float32 [images, classes], in the order of `classes`.

        Raises InputError if one of them does not decode; which one, only scoring it alone can tell.
        """
        if not image_bytes:
            return np.zeros((0, len(self.classes)), np.float32)
        try:
            outputs = self._signature(image_bytes=tf.constant(list(image_bytes)))
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"does not decode: {_reason(error)}") from None
        scores = outputs["scores"].numpy()
        return scores if self._in_order else _reordered(scores, outputs["classes"].numpy(), self.classes)

    def probabilities(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns calibrated scores of encoded images, float32 [images, classes]; takes and raises what `score` does.

        Models exported before there were temperatures give their scores.
        """
        return calibrated(self.score(image_bytes), self.temperature)

    def embed(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns the features that the last layer classifies, float32 [images, features].

        Raises InputError as `score` does, or where the model was exported without its features.
        """
        embeddings = self.embeddings
        images = self.images(image_bytes)
        if not len(images):  # The network takes no empty batch.
            return embeddings(tf.zeros([1, *images.shape[1:]])).numpy()[:0]
        return embeddings(tf.constant(images)).numpy()

    def images(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns what the network sees of encoded images: float32 [images, size, size, 3] in [-1, 1].

        Raises InputError as `score` does, or where the model was exported without its network's own functions.
        """
        try:
            return self._network.images(tf.constant(list(image_bytes), tf.string)).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"does not decode: {_reason(error)}") from None

    @property
    def logits(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """From what `images` returns to logits, float32 [images, classes], differentiable.

        Raises InputError where the model was exported without its network's own functions.
        """
        return self._network.logits

    @property
    def embeddings(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """From what `images` returns, no empty batch, to what `embed` gives, float32 [images, features].

        Raises InputError where the model was exported without its features.
        """
        embeddings = getattr(self._network, "embeddings", None)
        if embeddings is None:
            raise InputError(f"the model in {self._directory} was exported without embeddings; export it again")
        return embeddings

    @functools.cached_property
    def _network(self) -> Any:
        """A module with `images` and `logits`; the published graph has none, so its weights are put into ours."""
        if not self.metadata:
            network = inception_v3(variant="released")
            load_published_weights(network, self._directory)
            return Classifier(fold(network), self.classes, network.input_shape[1])
        if not hasattr(self._saved, "logits"):
            raise InputError(f"the model in {self._directory} was exported without gradients; export it again")
        return self._saved


def _reason(error: tf.errors.OpError) -> str:
    """TensorFlow's message without what tells of its graph."""
    text = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]", "", error.message)
    lines = (line.strip() for line in text.splitlines())
    about_the_graph = ("Graph execution error", "Detected at node", "<stack traces", "File ")
    return next((line for line in lines if line and not line.startswith(about_the_graph)), "unknown format")


def _reordered(scores: np.ndarray, names: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Puts scores [n, classes], each row sorted in its own way, into the order of `classes`."""
    wanted = np.array([name.encode() for name in classes], dtype=object)
    columns = np.argmax(names[:, None, :] == wanted[None, :, None], axis=2)
    return np.take_along_axis(scores, columns, axis=1)


def load(directory: str | Path) -> LoadedClassifier:
    """Opens the SavedModel in `directory`, or the newest in a folder of numbered versions.

    Raises InputError if there is none, or if it takes something other than encoded images.
    """
    found = saved_model_directory(directory)
    with without_warnings():
        saved = tf.saved_model.load(str(found))
    signature = saved.signatures.get("serving_default")
    if signature is None or "image_bytes" not in signature.structured_input_signature[1]:
        raise InputError(f"the model in {found} does not take image_bytes; use one exported by marco")
    metadata = read_metadata(found)
    if metadata:
        return LoadedClassifier(saved, metadata.get("name", found.name), metadata["classes"], metadata, found)
    if signature.structured_outputs["scores"].shape[-1] != len(CLASSES):
        raise InputError(
            f"the model in {found} has no {METADATA} and not MARCO's four classes; use one exported by marco"
        )
    return LoadedClassifier(saved, PUBLISHED_NAME, CLASSES, {}, found)


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
