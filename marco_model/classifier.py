"""The served model: from encoded images to named scores, class, calibrated probabilities and features; its export."""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from marco_model import errors, layers, model_directory, onnx_export, onnx_network, preprocessing, store

log = logging.getLogger(__name__)

EXAMPLE_IMAGE = "image/encoded"
"""The feature of a MARCO record that holds the encoded image (docs/data.md)."""

Preprocess = Callable[[tf.Tensor], tf.Tensor]


class Classifier(tf.Module):
    """Preprocessing, network, temperature and names in one traceable module.

    `network`: from float32 [batch, size, size, 3] in [-1, 1] to logits, through a global average pooling.
    `temperature`: divides the logits before the softmax that gives `probabilities`. `version`: the model's name.
    `raw_labels`: names of its `raw_logits`, if it has them. Raises `InputError` if it has no global average pooling.
    """

    def __init__(
        self,
        network: keras.Model,
        classes: Sequence[str],
        input_size: int,
        preprocess: Preprocess | None = None,
        temperature: float = 1.0,
        version: str = "",
        raw_labels: Sequence[str] = (),
    ) -> None:
        super().__init__()
        pixels = tf.TensorSpec([None, input_size, input_size, 3], tf.float32, name="images")
        outputs = inference_function(with_features(network))
        self._outputs = tf.function(outputs, input_signature=[pixels], autograph=False)
        self._classes = tuple(classes)
        self._input_size = input_size
        self._preprocess = preprocess
        self._temperature = temperature
        self._version = version
        self._raw_labels = tuple(raw_labels)
        if raw_labels:
            encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
            self.raw_from_bytes = tf.function(self._raw_from_bytes, input_signature=[encoded], autograph=False)
        self.logits = tf.function(self._logits, input_signature=[pixels], autograph=False)
        self.embeddings = tf.function(self._embeddings, input_signature=[pixels], autograph=False)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def images(self, image_bytes: tf.Tensor) -> tf.Tensor:
        """Returns the network's input for string [batch]: float32 [batch, size, size, 3], decoded in parallel."""
        return preprocessing.evaluation_batch(image_bytes, self._input_size, self._preprocess)

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        """Returns logits, float32 [batch, classes], for what `images` returns; differentiable, also once loaded."""
        return self._outputs(images)["logits"]

    def _embeddings(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the features that the last layer classifies, float32 [batch, features], for what `images` returns."""
        return self._outputs(images)["embeddings"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def from_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the served outputs, which `marco_model.classifier.export` describes."""
        logits = self.logits(self.images(image_bytes))
        probabilities = tf.nn.softmax(logits / self._temperature)
        return {**self._named(logits, self._classes), "probabilities": probabilities}

    def _raw_from_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the outputs of the raw head, which `marco_model.classifier.export` describes."""
        return self._named(self._outputs(self.images(image_bytes))[layers.RAW_LOGITS], self._raw_labels)

    def _named(self, logits: tf.Tensor, labels: Sequence[str]) -> dict[str, tf.Tensor]:
        count, names = tf.shape(logits)[:1], tf.constant(labels)
        return {
            "scores": tf.nn.softmax(logits),
            "classes": tf.tile(names[None], [count[0], 1]),
            "class": tf.gather(names, tf.argmax(logits, axis=1)),
            "version": tf.fill(count, self._version),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")], autograph=False)
    def from_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the same outputs for serialized MARCO `tf.train.Example`s."""
        parsed = tf.io.parse_example(examples, {EXAMPLE_IMAGE: tf.io.FixedLenFeature([], tf.string)})
        return self.from_bytes(parsed[EXAMPLE_IMAGE])


def with_features(network: keras.Model) -> keras.Model:
    """Returns the same network, with the same variables, that returns a dict of `logits` and `embeddings`.

    `embeddings`: [batch, features], the output of the last global average pooling. `raw_logits` stay where the network
    has them. Raises `InputError` without such a pooling.
    """
    pooled = layers.pooled(network)
    features = keras.layers.Reshape((pooled.shape[-1],), name="embeddings")(pooled)
    outputs = {**layers.by_name(network.output), "embeddings": features}
    return keras.Model(network.inputs, outputs, name=network.name)


def inference_function(network: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the inference function of a `network` that returns a dict, with its weights as constants; in float32.

    TensorFlow's CPU kernels rearrange constant filters once, but filters in variables at every call.
    """
    trainable, others = (
        [variable.numpy() for variable in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    )

    def outputs(images: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors, _ = network.stateless_call(
            [tf.constant(value) for value in trainable],
            [tf.constant(value) for value in others],
            images,
            training=False,
        )
        return {name: tf.cast(tensor, tf.float32) for name, tensor in tensors.items()}

    return outputs


def logits_only(model: keras.Model) -> keras.Model:
    """Returns `model` without its further heads, if it has any."""
    if isinstance(model.output, dict):
        return keras.Model(model.inputs, model.output["logits"], name=model.name)
    return model


def served(model: keras.Model) -> keras.Model:
    """Returns `model` without the heads that only training uses: with `logits`, and `raw_logits` if it has them."""
    if layers.RAW_LOGITS not in layers.by_name(model.output):
        return logits_only(model)
    outputs = {name: model.output[name] for name in (layers.LOGITS, layers.RAW_LOGITS)}
    return keras.Model(model.inputs, outputs, name=model.name)


def export(
    model: keras.Model,
    directory: str | Path,
    *,
    classes: Sequence[str],
    input_size: int,
    preprocess: Preprocess | None = None,
    temperature: float = 1.0,
    raw_labels: Sequence[str] = (),
    metadata: Mapping[str, Any],
) -> None:
    """Writes `model`, as `inception_v3` returns it, to a new `directory`; nothing is left there if it fails.

    Signatures: `serving_default` (`image_bytes`: string [n], each a JPEG or PNG) and `serving_examples` (`examples`:
    string [n], serialized MARCO records), both to

    - `scores`: float32 [n, classes], the softmax of the logits; `classes`: string [n, classes], their names, in the
      order of `classes` in every row
    - `class`: string [n], the name with the highest score
    - `probabilities`: float32 [n, classes], the softmax of logits / `temperature` (`calibration.fit_temperature`)
    - `version`: string [n], the model's name

    With `raw_labels`, the names of the outputs of the model's raw head, there is `serving_raw` (`image_bytes`) to the
    same but for `probabilities`, of raw labels in place of classes.

    Batch norms are folded into the convolutions. The functions `images`, `logits` and `embeddings` of `Classifier` are
    kept too, with gradients. The weights as trained, by path, are in `assets.extra/weights.npz`. The network that
    `marco predict` scores with, without TensorFlow, is in `assets.extra/model.onnx` (`marco_model.onnx_network`).

    `preprocess` maps an encoded image (scalar string) to an image as the network was trained on, such as a shrunk one.
    What it did is in `metadata` as `shrink`, the arguments of `pixels.shrink`; otherwise there is no ONNX model.
    `metadata` is kept as JSON in `assets.extra/marco.json` with `classes`, `input_size` and `temperature`; its `name`
    (by default the folder's) is the `version`, and what `marco predict` writes into its last column.

    Raises `InputError` if the directory is not empty, the classes don't fit the network, the temperature is not
    positive, or the network has no features to keep.
    """
    target = str(directory).rstrip("/")
    network = served(model)
    for kind, names, output in (("class", classes, layers.LOGITS), ("raw label", raw_labels, layers.RAW_LOGITS)):
        width = layers.by_name(network.output)[output].shape[-1] if output in layers.by_name(network.output) else 0
        if width != len(names):
            raise errors.InputError(f"{len(names)} {kind} names for a network with {width} outputs")
    if not 0 < temperature < math.inf:
        raise errors.InputError(
            f"the temperature is {temperature}; give a positive number, 1 to leave the scores as they are"
        )
    if tf.io.gfile.exists(target) and tf.io.gfile.listdir(target):
        raise errors.InputError(f"{target} is not empty; export to a new folder")
    record = {
        "name": target.rpartition("/")[2],
        **metadata,
        "classes": list(classes),
        "input_size": input_size,
        "temperature": float(temperature),
        **({"raw_labels": list(raw_labels)} if raw_labels else {}),
    }
    folded = layers.fold(network)
    name = str(record["name"])
    classifier = Classifier(folded, classes, input_size, preprocess, float(temperature), name, raw_labels)
    signatures = {
        tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: classifier.from_bytes,
        "serving_examples": classifier.from_examples,
        **({"serving_raw": classifier.raw_from_bytes} if raw_labels else {}),
    }
    with _new_directory(target) as folder:
        tf.saved_model.save(classifier, folder, signatures=signatures)
        tf.io.gfile.makedirs(f"{folder}/assets.extra")
        with tf.io.gfile.GFile(f"{folder}/{model_directory.METADATA}", "w") as file:
            json.dump(record, file, indent=2)
        with tf.io.gfile.GFile(f"{folder}/{model_directory.WEIGHTS}", "wb") as file:
            file.write(store.npz({variable.path: variable.numpy() for variable in model.variables}))
        if preprocess is None or "shrink" in metadata:
            _write_onnx_model(logits_only(folded), f"{folder}/{onnx_network.MODEL}")


def _write_onnx_model(network: keras.Model, path: str) -> None:
    try:
        model = onnx_export.convert(with_features(network))
    except onnx_export.UnknownLayer as error:
        log.warning("The model can only be scored with TensorFlow, since ONNX export does not know it: %s", error)
        return
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(model)


@contextlib.contextmanager
def _new_directory(target: str) -> Iterator[str]:
    """Yields a folder beside `target`, local or in an object store, that becomes `target` when it is complete."""
    if not store.is_remote(target):
        with store.whole_directory(target) as folder:
            yield str(folder)
        return
    aside = f"{target}.partial"
    if tf.io.gfile.exists(aside):
        tf.io.gfile.rmtree(aside)
    yield aside
    if tf.io.gfile.exists(target):
        tf.io.gfile.rmtree(target)
    tf.io.gfile.rename(aside, target)
