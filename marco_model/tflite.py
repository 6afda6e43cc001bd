"""The network as a TensorFlow Lite model, for devices without TensorFlow, and how well it agrees with the SavedModel.

Input `images`: float32 [1, size, size, 3] in [-1, 1], as `Classifier.images` returns it. Output: scores, float32
[1, classes], summing to 1, in the order of the classes in `assets.extra/marco.json`. The batch size is fixed, since
TensorFlow Lite's fast kernels (XNNPACK) need that. Weights stay float32. The caller decodes, crops and resizes:
TensorFlow Lite has no JPEG decoder.
"""

import dataclasses
import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from marco_model import errors, record_index, saved_model, store, training_input

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


def convert(classifier: saved_model.SavedModel) -> bytes:
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
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def score(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        return interpreter.get_tensor(target)[0]

    return lambda images: np.stack([score(image) for image in images])


def compare(classifier: saved_model.SavedModel, model: bytes, encoded: Iterable[bytes]) -> Agreement:
    """Scores encoded images, JPEG or PNG, with both models and compares."""
    score = scorer(model)
    images, other_class, largest = 0, 0, 0.0
    remaining = iter(encoded)
    while batch := list(itertools.islice(remaining, _BATCH)):
        ours, theirs = classifier.score(batch), score(classifier.images(batch))
        images += len(batch)
        other_class += int((ours.argmax(1) != theirs.argmax(1)).sum())
        largest = max(largest, float(np.abs(ours - theirs).max()))
    return Agreement(images, other_class, largest)


def convert_and_check(classifier: saved_model.SavedModel, encoded: Iterable[bytes]) -> tuple[bytes, Agreement]:
    """Returns the TFLite model and how it agrees; raises `InputError` if an image is given another class."""
    model = convert(classifier)
    comparison = compare(classifier, model, encoded)
    if comparison.other_class:
        raise errors.InputError(
            f"the TFLite model gives {comparison.other_class} of {comparison.images} images another class than the "
            f"SavedModel (scores differ by up to {comparison.largest_difference:.2g}); do without it, in a run with "
            "export.tflite=false"
        )
    return model, comparison


def add(directory: str, classes: Sequence[str], examples: Sequence[str]) -> Agreement:
    """Adds `assets.extra/model.tflite` and its agreement, `assets.extra/tflite.json`, to an exported model's folder.

    directory: of the SavedModel, local or on gs://. examples: files that training reads, on all of whose images the two
    models must agree. Raises `InputError` as `convert_and_check` does, with nothing written.
    """
    classifier = saved_model.SavedModel(directory, classes)
    records = training_input.examples(record_index.read_index(examples))
    encoded = (image for image, _ in records.as_numpy_iterator())
    model, comparison = convert_and_check(classifier, encoded)
    store.write_bytes(f"{directory}/{MODEL}", model)
    store.write_bytes(f"{directory}/{CHECK}", json.dumps(dataclasses.asdict(comparison), indent=2).encode())
    return comparison
