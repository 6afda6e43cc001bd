"""The first weights of a training that does not start at random: the published classifier's, or an earlier model's.

`network.initial` names them. The published weights of 2018 fit `inception_v3` of variant `released`; those of an
earlier model are in the `WEIGHTS` file of its folder, local or on gs://, which TensorFlow's own file system reads.
"""

import hashlib
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from marco_model import classifier, errors, inception_v3, labels, layers, model_directory, network as networks, store

log = logging.getLogger(__name__)

_DAMAGED = "the model in {} is damaged ({{}}); copy or export it again"


class Kept(NamedTuple):
    """What a new model took over from an earlier one.

    `classes`: those whose columns of the head were kept. `fresh`: those that start at random. `auxiliary`: whether the
    auxiliary head was kept; None if the new model has none.
    """

    classes: tuple[str, ...]
    fresh: tuple[str, ...]
    auxiliary: bool | None


def initial_fingerprint(initial: str) -> str:
    """Returns what identifies the weights that `network.initial` names: for an earlier model a hash of its content.

    Raises `InputError` if there is no such model.
    """
    if initial == networks.RANDOM:
        return networks.RANDOM
    if initial == networks.RELEASED:
        return model_directory.PUBLISHED_SHA256
    folder = _folder(initial)
    digest = hashlib.sha256()
    for name in (model_directory.METADATA, model_directory.WEIGHTS):
        digest.update(hashlib.sha256(_read(folder, name)).digest())
    return digest.hexdigest()


def check_initial(network: networks.Network) -> None:
    """Raises `InputError` unless training can begin from the weights that `network.initial` names."""
    if network.initial not in (networks.RANDOM, networks.RELEASED):
        _earlier_weights(network)


def initialise(model: keras.Model, network: networks.Network, classes: Sequence[str]) -> Kept | None:
    """Fills `model`, which `build` made from `network` for `classes`, with the weights that `network.initial` names.

    Everything below the heads is kept. In the heads, the columns of classes that both models have are kept by name;
    those of other classes, an auxiliary head that the earlier model lacks or has in another size, and a raw head stay
    as they are. Logs and returns what was kept; returns None if `initial` is `random`.

    Raises `InputError` if there is no such model, or if it has another architecture.
    """
    if network.initial == networks.RANDOM:
        return None
    published = network.initial == networks.RELEASED
    values, earlier = (_published_weights(model), labels.CLASSES) if published else _earlier_weights(network)
    kept = _fill(model, network, values, classes, earlier)
    log.info("Weights start from %s: %s", network.initial, _sentence(kept, earlier))
    return kept


def initial_temperature(initial: str) -> float:
    """Returns the temperature of the model that `network.initial` names: 1 for random and for published weights."""
    if initial in (networks.RANDOM, networks.RELEASED):
        return 1.0
    return _facts(_folder(initial)).temperature


def load_published_weights(model: keras.Model, directory: Path | None = None) -> None:
    """Fills an `inception_v3` of variant `released`, with or without auxiliary head, with the published weights.

    `directory` is the published SavedModel's, by default the installed package's. Raises `InputError` if a variable of
    the model is not in the checkpoint with the same shape, such as with other classes.
    """
    values = _published_weights(model, directory)
    for variable in model.variables:
        shape, expected = _shape(values, variable), tuple(variable.shape)
        if shape != expected:
            raise errors.InputError(
                f"{inception_v3.slim_name(variable)} has shape {expected} here and {shape} in the published "
                "checkpoint; use variant released at full depth with its four classes"
            )
    for variable in model.variables:
        variable.assign(values[variable.path])


def published_network(directory: Path | None = None, *, auxiliary: bool = False) -> keras.Model:
    """Returns the network at 599 pixels with the weights of `load_published_weights`, for scoring or more training."""
    model = inception_v3.inception_v3(variant="released", auxiliary=auxiliary)
    load_published_weights(model, directory)
    return model


def export_published(directory: str | Path) -> None:
    """Writes the published classifier with the signatures of `marco_model.classifier`, under the name marco-released.

    Raises `InputError` if its package is not installed, or if `directory` is not empty.
    """
    metadata = {
        "name": "marco-released",
        **networks.Network(initial=networks.RELEASED).facts(),
        "source": f"{model_directory.PACKAGE} {model_directory.PACKAGE_VERSION}",
        "saved_model_sha256": model_directory.PUBLISHED_SHA256,
    }
    classifier.export(published_network(), directory, classes=labels.CLASSES, input_size=599, metadata=metadata)


def _published_weights(model: keras.Model, directory: Path | None = None) -> dict[str, np.ndarray]:
    """Returns the published values of the variables of `model`, an `inception_v3`, by path, as far as they exist."""
    directory = directory or model_directory.published_directory()
    checkpoint = tf.train.load_checkpoint(str(directory / "variables" / "variables"))
    names = {variable.path: inception_v3.slim_name(variable) for variable in model.variables}
    return {path: checkpoint.get_tensor(name) for path, name in names.items() if checkpoint.has_tensor(name)}


def _earlier_weights(network: networks.Network) -> tuple[dict[str, np.ndarray], Sequence[str]]:
    """Returns the weights of the model that `network.initial` names, by path, and its classes."""
    folder = _folder(network.initial)
    facts, weights = _facts(folder), _read(folder, model_directory.WEIGHTS)
    with errors.translated(errors.InputError, _DAMAGED.format(folder), ValueError, zipfile.BadZipFile, EOFError):
        values = store.arrays(weights)
    for name, expected in network.facts().items():
        if facts.network.get(name, expected) != expected:
            raise errors.InputError(
                f"the model in {folder} has {name} {facts.network[name]} and network.{name} is {expected}; "
                "make them equal"
            )
    return values, facts.classes


class _Facts(NamedTuple):
    """What a model's metadata says of it: all of it, the names of its classes, and its temperature."""

    network: Mapping[str, Any]
    classes: Sequence[str]
    temperature: float


def _facts(folder: str) -> _Facts:
    record = _read(folder, model_directory.METADATA)
    with errors.translated(errors.InputError, _DAMAGED.format(folder), ValueError, KeyError, TypeError, AttributeError):
        metadata = json.loads(record)
        return _Facts(metadata, [str(name) for name in metadata["classes"]], float(metadata.get("temperature", 1.0)))


def _folder(path: str) -> str:
    """Returns the folder of the model at `path`, or of the newest of its numbered versions; local or gs://."""
    path = path.rstrip("/")

    def holds_model(folder: str) -> bool:
        return bool(tf.io.gfile.exists(f"{folder}/{model_directory.MODEL_FILE}"))

    message = f"network.initial is {path!r}, which cannot be read: {{}}"
    with errors.translated(errors.InputError, message, tf.errors.OpError):
        if holds_model(path):
            return path
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(path)] if tf.io.gfile.isdir(path) else []
        versions = [name for name in names if name.isdecimal() and holds_model(f"{path}/{name}")]
    if not versions:
        raise errors.InputError(
            f"network.initial is {path!r}, which holds no model; give random, released, or a folder with "
            f"{model_directory.MODEL_FILE} or of numbered versions"
        )
    return f"{path}/{max(versions, key=int)}"


def _read(folder: str, name: str) -> bytes:
    message = (
        f"network.initial: cannot read {name} of {folder} ({{}}); training starts only from a model that was exported "
        "with its weights, by this or a later version"
    )
    file = tf.io.gfile.GFile(f"{folder}/{name}", "rb")
    with errors.translated(errors.InputError, message, tf.errors.OpError), file:
        return bytes(file.read())


def _fill(
    model: keras.Model,
    network: networks.Network,
    values: Mapping[str, np.ndarray],
    classes: Sequence[str],
    earlier: Sequence[str],
) -> Kept:
    """Assigns the values that fit; raises `InputError`, with nothing assigned, if one below the heads does not."""
    logits = networks.ARCHITECTURES[network.architecture].logits

    def fits(variable: keras.Variable) -> bool:
        shape, expected = _shape(values, variable), tuple(variable.shape)
        if shape is not None and _layer(variable) in logits:
            return shape[:-1] == expected[:-1]
        return shape == expected

    prefix = networks.AUXILIARY
    auxiliary = [variable for variable in model.variables if _layer(variable).startswith(prefix)]
    keeps_auxiliary = all(map(fits, auxiliary))
    kept = [variable for variable in model.variables if keeps_auxiliary or not _layer(variable).startswith(prefix)]
    kept = [variable for variable in kept if _layer(variable) != layers.RAW_LAYER]
    for variable in kept:
        if not fits(variable):
            raise errors.InputError(
                f"network.initial is {network.initial!r}, where {variable.path} has shape {_shape(values, variable)}, "
                f"and {tuple(variable.shape)} here; describe the same network"
            )
    columns = {labels.key(name): column for column, name in enumerate(earlier)}
    ours = [column for column, name in enumerate(classes) if labels.key(name) in columns]
    theirs = [columns[labels.key(classes[column])] for column in ours]
    for variable in kept:
        value = values[variable.path]
        if _layer(variable) in logits:
            value, earlier_value = variable.numpy(), value
            value[..., ours] = earlier_value[..., theirs]
        variable.assign(value)
    same = tuple(classes[column] for column in ours)
    fresh = tuple(name for name in classes if name not in same)
    return Kept(same, fresh, keeps_auxiliary if auxiliary else None)


def _layer(variable: keras.Variable) -> str:
    return str(variable.path).partition("/")[0]


def _shape(values: Mapping[str, np.ndarray], variable: keras.Variable) -> tuple[int, ...] | None:
    return values[variable.path].shape if variable.path in values else None


def _sentence(kept: Kept, earlier: Sequence[str]) -> str:
    parts = ["everything below the head is kept"]
    if kept.classes:
        parts.append(f"the head is kept for {', '.join(kept.classes)}")
    if kept.fresh:
        parts.append(f"it starts at random for {', '.join(kept.fresh)}")
    gone = [name for name in earlier if labels.key(name) not in map(labels.key, kept.classes)]
    if gone:
        parts.append(f"no longer classes: {', '.join(gone)}")
    if kept.auxiliary is not None:
        parts.append(f"the auxiliary head {'is kept' if kept.auxiliary else 'starts at random'}")
    return "; ".join(parts)
