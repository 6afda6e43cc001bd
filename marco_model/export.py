"""Writes a trained network as a SavedModel that takes encoded images and returns named scores in a fixed order."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from marco_model.classifier import Classifier, Preprocess
from marco_model.errors import InputError
from marco_model.folding import fold
from marco_model.model_directory import METADATA

WEIGHTS = "assets.extra/weights.npz"
"""The weights as trained, batch norms not folded in and auxiliary head included: what training can begin from."""


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
    temperature: float = 1.0,
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

    Batch norm is folded into the convolutions. The functions `images`, `logits` and `embeddings` of `Classifier` are
    kept too, with gradients. The weights as they were, by their paths, lie beside it in `assets.extra/weights.npz`.

    `preprocess` maps an encoded image (scalar string) to the one that the network was trained on, such as a shrunk
    one. `metadata` is kept as JSON in `assets.extra/marco.json` with `classes`, `input_size` and `temperature`; its
    `name` (the folder's, if it has none) is the `version`, and what `marco predict` puts into its last column.

    Raises InputError if the directory holds something, the classes don't fit the network, the temperature is not
    positive, or the network has no features to keep.
    """
    target = str(directory).rstrip("/")
    network = logits_only(model)
    if network.output_shape[-1] != len(classes):
        raise InputError(f"{len(classes)} class names for a network with {network.output_shape[-1]} outputs")
    if not 0 < temperature < math.inf:
        raise InputError(f"the temperature is {temperature}; give a positive number, 1 to leave the scores as they are")
    if tf.io.gfile.exists(target) and tf.io.gfile.listdir(target):
        raise InputError(f"{target} is not empty; export to a new folder")
    told = {
        "name": target.rpartition("/")[2],
        **metadata,
        "classes": list(classes),
        "input_size": input_size,
        "temperature": float(temperature),
    }
    classifier = Classifier(fold(network), classes, input_size, preprocess, float(temperature), str(told["name"]))
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
        json.dump(told, file, indent=2)
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
