"""Writes a trained network as a SavedModel that takes encoded images and returns named scores in a fixed order."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marco_model.errors import InputError
from marco_model.folding import fold
from marco_model.preprocessing import evaluation_image

METADATA = "assets.extra/marco.json"
WEIGHTS = "assets.extra/weights.npz"
"""The weights as trained, batch norms not folded in and auxiliary head included: what training can begin from."""
EXAMPLE_IMAGE = "image/encoded"
"""The feature of a MARCO record that holds the encoded image (docs/data.md)."""

Preprocess = Callable[[tf.Tensor], tf.Tensor]


class Classifier(tf.Module):
    """From encoded images to scores: preprocessing, network and class names in one traceable module."""

    def __init__(
        self, network: keras.Model, classes: Sequence[str], input_size: int, preprocess: Preprocess | None = None
    ) -> None:
        super().__init__()
        self._network = network
        self._classes = tuple(classes)
        self._input_size = input_size
        self._preprocess = preprocess
        pixels = tf.TensorSpec([None, input_size, input_size, 3], tf.float32, name="images")
        self.logits = tf.function(self._logits, input_signature=[pixels])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def images(self, image_bytes: tf.Tensor) -> tf.Tensor:
        """String [batch] to the network's input, float32 [batch, size, size, 3], images in parallel."""

        def one(encoded: tf.Tensor) -> tf.Tensor:
            return evaluation_image(self._preprocess(encoded) if self._preprocess else encoded, self._input_size)

        spec = tf.TensorSpec([self._input_size, self._input_size, 3], tf.float32)
        return tf.map_fn(one, image_bytes, fn_output_signature=spec, parallel_iterations=16)

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        """Float32 [batch, size, size, 3] in [-1, 1], as `images` returns, to logits, float32 [batch, classes].

        Differentiable, from a loaded SavedModel too.
        """
        return tf.cast(self._network(images, training=False), tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def from_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `scores`, float32 [batch, classes], rows summing to 1, and `classes`, string [batch, classes]."""
        scores = tf.nn.softmax(self.logits(self.images(image_bytes)))
        names = tf.tile(tf.constant(self._classes)[None], [tf.shape(image_bytes)[0], 1])
        return {"scores": scores, "classes": names}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def from_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same outputs from serialized MARCO `tf.train.Example`s."""
        parsed = tf.io.parse_example(examples, {EXAMPLE_IMAGE: tf.io.FixedLenFeature([], tf.string)})
        return self.from_bytes(parsed[EXAMPLE_IMAGE])


def logits_only(model: keras.Model) -> keras.Model:
    """Returns `model` without its auxiliary head, if it has one."""
    if isinstance(model.output, dict):
        return keras.Model(model.inputs, model.output["logits"], name=model.name)
    return model


def export(
    model: keras.Model,
    directory: str | Path,
    *,
    classes: Sequence[str],
    input_size: int,
    preprocess: Preprocess | None = None,
    metadata: Mapping[str, Any],
) -> None:
    """Writes `model`, as `inception_v3` returns it, to a new `directory`; nothing is left there if it fails.

    Signatures: `serving_default` (`image_bytes`: string [batch], each a JPEG or PNG) and `serving_examples`
    (`examples`: string [batch], serialized MARCO records), both to `scores`, float32 [batch, classes], and `classes`,
    string [batch, classes], in the order of `classes`. Batch norm is folded into the convolutions. The functions
    `images` and `logits` of `Classifier` are kept too, with gradients. The weights as they were, by their paths, lie
    beside it in `assets.extra/weights.npz`.

    `preprocess` maps an encoded image (scalar string) to the one that the network was trained on, such as a shrunk
    one. `metadata` is kept as JSON in `assets.extra/marco.json` with `classes` and `input_size`; `name` is what
    `marco predict` puts into its last column. Raises InputError if the directory holds something or the classes don't
    fit the network.
    """
    target = str(directory).rstrip("/")
    network = logits_only(model)
    if network.output_shape[-1] != len(classes):
        raise InputError(f"{len(classes)} class names for a network with {network.output_shape[-1]} outputs")
    if tf.io.gfile.exists(target) and tf.io.gfile.listdir(target):
        raise InputError(f"{target} is not empty; export to a new folder")
    classifier = Classifier(fold(network), classes, input_size, preprocess)
    signatures = {
        tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: classifier.from_bytes,
        "serving_examples": classifier.from_examples,
    }
    aside = f"{target}.partial"
    if tf.io.gfile.exists(aside):
        tf.io.gfile.rmtree(aside)
    tf.saved_model.save(classifier, aside, signatures=signatures)
    tf.io.gfile.makedirs(f"{aside}/assets.extra")
    with tf.io.gfile.GFile(f"{aside}/{METADATA}", "w") as file:
        json.dump({**metadata, "classes": list(classes), "input_size": input_size}, file, indent=2)
    _write_weights(model, f"{aside}/{WEIGHTS}")
    if tf.io.gfile.exists(target):
        tf.io.gfile.rmtree(target)
    tf.io.gfile.rename(aside, target)


def _write_weights(model: keras.Model, path: str) -> None:
    """Writes every variable by its path, such as `Conv2d_0a_3x3/kernel`."""
    buffer = io.BytesIO()
    np.savez(buffer, **{variable.path: variable.numpy() for variable in model.variables})
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(buffer.getvalue())
