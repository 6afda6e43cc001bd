"""Opens a classifier on disk: one that `marco_model.classifier.export` wrote, or the published one of 2018.

It scores on ONNX Runtime. TensorFlow is imported only for gradients, and for models without an ONNX model.
"""

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from marco_model import (
    calibration,
    errors,
    labels,
    model_directory,
    novelty,
    onnx_network,
    pictures,
    pixels,
    published,
    store,
    time_course,
)

if TYPE_CHECKING:
    from marco_model import saved_model

Result = TypeVar("Result")


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
        self,
        directory: Path,
        name: str,
        classes: Sequence[str],
        metadata: dict[str, Any],
        network: onnx_network.OnnxNetwork | None,
    ) -> None:
        self._directory = directory
        self._network = network
        self.name = name
        self.classes = tuple(classes)
        self.metadata = metadata
        self.temperature = float(metadata.get("temperature", 1.0))

    def __repr__(self) -> str:
        return f"<LoadedClassifier {self.name}: {', '.join(self.classes)}>"

    @property
    def preparation(self) -> pixels.Preparation | None:
        """How an encoded image becomes the network's input; None for a model without an ONNX model."""
        return self._network.preparation if self._network else None

    @functools.cached_property
    def reference(self) -> novelty.Reference | None:
        """What the model's training pictures looked like; None if it was exported without, as the published one is.

        Raises `InputError` if it is damaged.
        """
        return self._beside(novelty.Reference, novelty.FILE)

    @functools.cached_property
    def time_course(self) -> time_course.TimeCourse | None:
        """When crystals came to a drop, by its pictures so far; None if the model was exported without.

        Raises `InputError` if it is damaged.
        """
        return self._beside(time_course.TimeCourse, time_course.FILE)

    def _beside(self, kind: type[Result], name: str) -> Result | None:
        if not self._network or not (file := self._directory / name).is_file():
            return None
        return model_directory.read_arrays(kind, file)

    def described(self, image_bytes: Sequence[bytes | np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns what `score` does, how far each image is from the training pictures, and what `time_course` takes.

        The distance is float32 [images]; above 1 an image is unknown, see `novelty`. It is 0 for a model without a
        `reference`. The last is float32 [images, values]: the features without a `time_course`, and nothing for a model
        without an ONNX model. Raises what `score` does.
        """
        if not (self._network and image_bytes):
            count = len(image_bytes)
            return self.score(image_bytes), np.zeros(count, np.float32), np.zeros((count, 0), np.float32)
        return self._network.described(image_bytes, self.reference, self.time_course)

    def score(self, image_bytes: Sequence[bytes | np.ndarray]) -> np.ndarray:
        """Scores encoded images, JPEG or PNG as `pictures.upright` returns them, or what `preparation` returned.

        Returns float32 [images, classes] in the order of `classes`: values in [0, 1], each row summing to 1. Raises
        `InputError` if one of them does not decode; to find out which, score it alone.
        """
        if not image_bytes:
            return np.zeros((0, len(self.classes)), np.float32)
        if self._network:
            return self._network.outputs("scores", image_bytes)
        return self.saved_model.score(cast(Sequence[bytes], image_bytes))

    def score_files(self, paths: Sequence[str | Path], batch_size: int = 8) -> np.ndarray:
        """Scores image files, given as paths or as gs:// URIs, `batch_size` at a time, as `marco predict` does.

        Returns float32 [files, classes], as `score` does, in the order of `paths`. They may be what `pictures.upright`
        takes. Raises `InputError` that names the first file that cannot be read or scored, and `ClusterError` if a
        bucket's service fails.
        """
        scores = [np.zeros((0, len(self.classes)), np.float32)]
        for start in range(0, len(paths), batch_size):
            batch = [str(path) for path in paths[start : start + batch_size]]
            images = []
            for path in batch:
                with errors.translated(errors.InputError, f"{path} cannot be read ({{}})", OSError):
                    content = store.read_bytes(path)
                try:
                    images.append(pictures.upright(content))
                except errors.InputError as error:
                    raise errors.InputError(f"{path}: {error}") from None
            for path, result in zip(batch, errors.result_or_reason(self.score, images), strict=True):
                if isinstance(result, str):
                    raise errors.InputError(f"{path}: {result}")
                scores.append(result[None])
        return np.concatenate(scores)

    def probabilities(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns calibrated scores of encoded images, float32 [images, classes]; raises what `score` does."""
        return calibration.calibrate(self.score(image_bytes), self.temperature)

    def embed(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns the features that the last layer classifies, float32 [images, features]; raises what `score` does."""
        if self._network:
            return self._network.outputs("embeddings", image_bytes)
        return self.saved_model.embed(image_bytes)

    def images(self, image_bytes: Sequence[bytes]) -> np.ndarray:
        """Returns the network's input for encoded images: float32 [images, size, size, 3] in [-1, 1].

        Raises what `score` does.
        """
        if self._network:
            return np.ascontiguousarray(self._network.images(image_bytes).transpose(0, 2, 3, 1))
        return self.saved_model.images(image_bytes)

    @property
    def logits(self) -> Callable[[Any], Any]:
        """The function from what `images` returns to logits, float32 [images, classes], differentiable in TensorFlow.

        Raises `InputError` if TensorFlow is not installed, or if the model has nothing but its signatures.
        """
        return self.saved_model.logits

    @property
    def embeddings(self) -> Callable[[Any], Any]:
        """The function from what `images` returns, at least one image, to what `embed` returns; in TensorFlow.

        Raises `InputError` if TensorFlow is not installed, or if the model has nothing but its signatures.
        """
        return self.saved_model.embeddings

    @functools.cached_property
    def saved_model(self) -> "saved_model.SavedModel":
        """The classifier in TensorFlow; raises `InputError` if TensorFlow is not installed."""
        # TensorFlow's lines about CUDA at its start, and Google's about versions of Python.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with errors.naming_extra(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            from marco_model import saved_model
        return saved_model.SavedModel(self._directory, self.classes, published=not self.metadata)


def open_classifier(directory: str | Path, threads: int = 0, average: int = 1) -> LoadedClassifier:
    """Opens the model in `directory`, or the newest version in a folder of numbered versions.

    threads: that score; 0 for one per core. average: scores and features are the mean over so many symmetric views of
    an image, 1, 2, 4 or 8 (`onnx_network.views`), which takes as many times as long. Raises `InputError` if there is no
    model, if it takes something other than encoded images, or if it is too old to average.
    """
    if average not in onnx_network.VIEWS:
        raise errors.InputError(f"scores are to be the mean over {average} views; give 1, 2, 4 or 8")
    folder = model_directory.saved_model_directory(directory)
    metadata = model_directory.read_metadata(folder)
    model: Path | bytes | None = None
    preparation = pixels.Preparation(published.INPUT_SIZE)
    if metadata:
        name, classes = metadata.get("name", folder.name), metadata["classes"]
        if (file := folder / onnx_network.MODEL).is_file():
            model, preparation = file, pixels.Preparation.recorded(metadata)
    else:
        name, classes = model_directory.PUBLISHED_NAME, labels.CLASSES
        if model_directory.is_published(folder):
            model = published.onnx_model(folder)
    if model is not None:
        # Results say where scores are means.
        name = f"{name}, mean of {average} views" if average > 1 else name
        network = onnx_network.OnnxNetwork(model, preparation, threads, average)
        return LoadedClassifier(folder, name, classes, metadata, network)
    if average > 1:
        raise errors.InputError(f"the model in {folder} has no {onnx_network.MODEL}, which averages; export it again")
    opened = LoadedClassifier(folder, name, classes, metadata, None)
    _ = opened.saved_model
    return opened


def open_published_classifier() -> LoadedClassifier:
    """Opens the classifier published in 2018, with the classes `CLASSES`.

    Its package is fetched if it is not installed; raises `InputError` if it cannot be.
    """
    return open_classifier(model_directory.published_directory())
