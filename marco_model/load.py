"""Opens a classifier on disk: a SavedModel that `marco_model.classifier.export` wrote, or the published one of 2018."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from marco_model import batch_norm, calibration, classifier, errors, labels, model_directory, store, weights


class LoadedClassifier:
    """A classifier ready to score.

    Attributes:
        name: what to call it in results.
        classes: names of the classes, in the order of the scores.
        temperature: what the logits are divided by to give probabilities; 1.0 where none was fitted, as for the
            published classifier.
        metadata: what `export` recorded; empty for the published classifier.
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
        """Scores encoded images, JPEG or PNG.

        Returns float32 [images, classes] in the order of `classes`: values in [0, 1], each row summing to 1. Raises
        `InputError` if one of them does not decode; to find out which, score it alone.
        """
        if not image_bytes:
            return np.zeros((0, len(self.classes)), np.float32)
        with _decoding():
            outputs = self._signature(image_bytes=tf.constant(list(image_bytes)))
        scores = outputs["scores"].numpy()
        return scores if self._in_order else _reordered(scores, outputs["classes"].numpy(), self.classes)

    def score_files(self, paths: Sequence[str | Path], batch_size: int = 8) -> np.ndarray:
        """Scores image files, JPEG or PNG, given as paths or as gs:// URIs, `batch_size` at a time.

        Returns float32 [files, classes], as `score` does, in the order of `paths`. Raises `InputError` that names the
        first file that cannot be read or does not decode, and `ClusterError` if a bucket's service fails.
        """
        scores = [np.zeros((0, len(self.classes)), np.float32)]
        for start in range(0, len(paths), batch_size):
            batch = [str(path) for path in paths[start : start + batch_size]]
            images = []
            for path in batch:
                with errors.translated(errors.InputError, f"{path} cannot be read ({{}})", OSError):
                    images.append(store.read_bytes(path))
            for path, result in zip(batch, errors.result_or_reason(self.score, images), strict=True):
                if isinstance(result, str):
                    raise errors.InputError(f"{path} {result}")
                scores.append(result[None])
        return np.concatenate(scores)

    def probabilities(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns calibrated scores of encoded images, float32 [images, classes]; takes and raises what `score` does.

        Models exported before there were temperatures give their scores.
        """
        return calibration.calibrate(self.score(image_bytes), self.temperature)

    def embed(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns the features that the last layer classifies, float32 [images, features].

        Raises `InputError` as `score` does, or if the model was exported without its features.
        """
        embeddings = self.embeddings
        images = self.images(image_bytes)
        if not len(images):  # The network takes no empty batch.
            return embeddings(tf.zeros([1, *images.shape[1:]])).numpy()[:0]
        return embeddings(tf.constant(images)).numpy()

    def images(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns the network's input for encoded images: float32 [images, size, size, 3] in [-1, 1].

        Raises `InputError` as `score` does, or if the model was exported without its network's own functions.
        """
        with _decoding():
            return self._network.images(tf.constant(list(image_bytes), tf.string)).numpy()

    @property
    def logits(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function from what `images` returns to logits, float32 [images, classes], differentiable.

        Raises `InputError` if the model was exported without its network's own functions.
        """
        return self._network.logits

    @property
    def embeddings(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The function from what `images` returns, at least one image, to what `embed` returns.

        Raises `InputError` if the model was exported without its features.
        """
        embeddings = getattr(self._network, "embeddings", None)
        if embeddings is None:
            raise errors.InputError(f"the model in {self._directory} was exported without embeddings; export it again")
        return embeddings

    @functools.cached_property
    def _network(self) -> Any:
        """A module with `images` and `logits`; the published graph has none, so its weights are put into ours."""
        if not self.metadata:
            network = weights.published_network(self._directory)
            return classifier.Classifier(batch_norm.fold(network), self.classes, network.input_shape[1])
        if not hasattr(self._saved, "logits"):
            raise errors.InputError(f"the model in {self._directory} was exported without gradients; export it again")
        return self._saved


def open_classifier(directory: str | Path) -> LoadedClassifier:
    """Opens the SavedModel in `directory`, or the newest version in a folder of numbered versions.

    Raises `InputError` if there is no model, or if it takes something other than encoded images.
    """
    folder = model_directory.saved_model_directory(directory)
    with without_warnings():
        saved = tf.saved_model.load(str(folder))
    signature = saved.signatures.get("serving_default")
    if signature is None or "image_bytes" not in signature.structured_input_signature[1]:
        raise errors.InputError(f"the model in {folder} does not take image_bytes; use one exported by marco")
    metadata = model_directory.read_metadata(folder)
    if metadata:
        return LoadedClassifier(saved, metadata.get("name", folder.name), metadata["classes"], metadata, folder)
    if signature.structured_outputs["scores"].shape[-1] != len(labels.CLASSES):
        raise errors.InputError(
            f"the model in {folder} has no {model_directory.METADATA} and not MARCO's four classes; use one exported "
            "by marco"
        )
    return LoadedClassifier(saved, model_directory.PUBLISHED_NAME, labels.CLASSES, {}, folder)


def open_published_classifier() -> LoadedClassifier:
    """Opens the classifier published in 2018, with the classes `CLASSES`.

    Raises `InputError` if its package is not installed (`pip install 'marco-pipeline[released]'`).
    """
    return open_classifier(model_directory.published_directory())


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
def _decoding() -> Iterator[None]:
    """Raises `InputError` for an image that does not decode, in one line and without details of the graph."""
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
