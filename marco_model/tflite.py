"""The network as a TensorFlow Lite model, for devices without TensorFlow, and how well it agrees with the SavedModel.

Input `images`: float32 [1, size, size, 3] in [-1, 1], what `Classifier.images` makes of an encoded image. Output:
scores, float32 [1, classes], summing to 1, classes in the order of `assets.extra/marco.json`. The batch is fixed, since
TensorFlow Lite's fast kernels (XNNPACK) take none of any size. Weights stay float32. Decoding, cropping and resizing
are the caller's: TensorFlow Lite has no JPEG decoder.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from marco_model.errors import InputError
from marco_model.load import LoadedClassifier
from marco_model.preprocessing import untuned

MODEL = "assets.extra/model.tflite"
CHECK = "assets.extra/tflite.json"
_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How the TFLite model's scores compare with the SavedModel's.

    `images` were scored by both, `other_class` of them were given another class, and no score differed by more than
    `largest_difference`.
    """

    images: int
    other_class: int
    largest_difference: float


def convert(classifier: LoadedClassifier) -> bytes:
    """Returns the classifier's network as a TFLite model, as this file describes it."""
    any_image = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    size = classifier.images([any_image]).shape[1:]
    kept = tf.Module()
    kept.logits = classifier.logits

    @tf.function(input_signature=[tf.TensorSpec([1, *size], tf.float32, name="images")], autograph=False)
    def scores(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(kept.logits(images))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([scores.get_concrete_function()], kept)
    return converter.convert()


def scorer(model: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from float32 images [n, size, size, 3] to scores, float32 [n, classes]."""
    with warnings.catch_warnings():
        # TensorFlow 2.21 says that its interpreter will move to another package.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_content=model, num_threads=2)
    given, told = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    interpreter.allocate_tensors()

    def one(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given, image[None])
        interpreter.invoke()
        return interpreter.get_tensor(told)[0]

    return lambda images: np.stack([one(image) for image in images])


def agreement(classifier: LoadedClassifier, model: bytes, encoded: Iterable[bytes]) -> Agreement:
    """Scores encoded images, JPEG or PNG, with both models and compares."""
    score = scorer(model)
    images, other_class, largest = 0, 0, 0.0
    for batch in _batches(encoded):
        ours, theirs = classifier.score(batch), score(classifier.images(batch))
        images += len(batch)
        other_class += int((ours.argmax(1) != theirs.argmax(1)).sum())
        largest = max(largest, float(np.abs(ours - theirs).max()))
    return Agreement(images, other_class, largest)


def checked(classifier: LoadedClassifier, encoded: Iterable[bytes]) -> tuple[bytes, Agreement]:
    """Returns the TFLite model and how it agrees; raises InputError if one image is given another class."""
    model = convert(classifier)
    found = agreement(classifier, model, encoded)
    if found.other_class:
        raise InputError(
            f"the TFLite model gives {found.other_class} of {found.images} images another class than the SavedModel "
            f"(scores differ by up to {found.largest_difference:.2g}); do without it, in a run with export.tflite=false"
        )
    return model, found


def add(directory: str, classes: Sequence[str], examples: Sequence[str]) -> Agreement:
    """Puts `assets.extra/model.tflite` and, in `tflite.json`, its agreement into an exported model's folder.

    directory: of the SavedModel, local or a URI. examples: gzip TFRecords of `tf.train.Example` with `image/encoded`,
    on all of which the two models must agree. Raises InputError as `checked` does; the folder is then as it was.
    """
    saved = tf.saved_model.load(directory)
    classifier = LoadedClassifier(saved, "", classes, {"classes": list(classes)}, Path(directory))
    model, found = checked(classifier, _encoded(examples))
    for path, content in ((MODEL, model), (CHECK, json.dumps(dataclasses.asdict(found), indent=2).encode())):
        with tf.io.gfile.GFile(f"{directory}/{path}.partial", "wb") as file:
            file.write(content)
        tf.io.gfile.rename(f"{directory}/{path}.partial", f"{directory}/{path}", overwrite=True)
    return found


def _encoded(files: Sequence[str]) -> Iterator[bytes]:
    feature = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    for record in untuned(tf.data.TFRecordDataset(list(files), "GZIP")):
        yield tf.io.parse_single_example(record, feature)["image/encoded"].numpy()


def _batches(encoded: Iterable[bytes]) -> Iterator[list[Any]]:
    remaining = iter(encoded)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch
