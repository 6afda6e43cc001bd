"""A batch of images through the model; an image that does not decode costs only itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.serving.instances import Refused

if TYPE_CHECKING:
    import numpy as np

    from marco_model.load import LoadedClassifier


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores and calibrated probabilities of one image, float32 [classes] each, in the order of the model's classes."""

    scores: np.ndarray
    probabilities: np.ndarray


def classify(classifier: LoadedClassifier, images: Sequence[bytes]) -> list[Scored | Refused]:
    """Scores encoded images, together where all decode; one answer an image, in their order.

    Where the model refuses the batch, each image is decoded by itself, which is cheap against scoring it, to find those
    at fault; the others are then scored together. The published graph keeps some 30 MB each time that it refuses a
    batch, as it seems because TensorFlow 1's TensorArrays are not closed then; so its images are decoded beforehand.
    """
    from marco_model.errors import InputError

    published = not classifier.metadata
    faults = _undecodable(images) if published else {}
    if not faults:
        try:
            return list(_scored(classifier, images))
        except InputError as error:
            if len(images) == 1:
                return [Refused(str(error))]
        faults = {} if published else _undecodable(images)
        if not faults:
            return [answer for image in images for answer in classify(classifier, [image])]
    sound = [image for index, image in enumerate(images) if index not in faults]
    good = iter(classify(classifier, sound) if sound else ())
    return [faults[index] if index in faults else next(good) for index in range(len(images))]


def _undecodable(images: Sequence[bytes]) -> dict[int, Refused]:
    """Returns the images that do not decode, by their places."""
    from marco_data.decoding import decoded_shape
    from marco_model.errors import InputError

    faults = {}
    for index, image in enumerate(images):
        try:
            decoded_shape(image)
        except InputError as error:
            faults[index] = Refused(str(error))
    return faults


def _scored(classifier: LoadedClassifier, images: Sequence[bytes]) -> list[Scored]:
    from marco_model.calibration import calibrated

    scores = classifier.score(images)
    return [Scored(*rows) for rows in zip(scores, calibrated(scores, classifier.temperature), strict=True)]


def warm_up(classifier: LoadedClassifier, max_batch: int) -> None:
    """Scores grey images of a usual size, one and then `max_batch` at once, so that no request pays for first runs."""
    import tensorflow as tf

    image = tf.io.encode_jpeg(tf.fill([960, 1280, 3], tf.constant(128, tf.uint8))).numpy()
    for size in sorted({1, max_batch}):
        classifier.score([image] * size)
