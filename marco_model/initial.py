"""Where the weights of a training start, if not at random: the published classifier, or an earlier model of ours."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from marco_model import released
from marco_model.classifier import WEIGHTS
from marco_model.errors import InputError
from marco_model.labels import CLASSES, key
from marco_model.model_directory import METADATA
from marco_model.network import ARCHITECTURES, AUXILIARY, RANDOM, RELEASED, Network

log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """What of an earlier model went into a new one.

    `classes`: those whose columns of the head were kept. `fresh`: those that start at random. `auxiliary`: whether its
    auxiliary head was kept; None if the new one has none.
    """

    classes: tuple[str, ...]
    fresh: tuple[str, ...]
    auxiliary: bool | None


def fingerprint(initial: str) -> str:
    """Returns what tells the weights that `network.initial` names from others: a hash of an earlier model's content.

    Raises `InputError` where there is no such model.
    """
    if initial == RANDOM:
        return RANDOM
    if initial == RELEASED:
        return released.SHA256
    folder = _folder(initial)
    digest = hashlib.sha256()
    for name in (METADATA, WEIGHTS):
        digest.update(hashlib.sha256(_read(folder, name)).digest())
    return digest.hexdigest()


def initialise(model: keras.Model, network: Network, classes: Sequence[str]) -> Kept | None:
    """Fills `model`, which `build` made from `network` for `classes`, with the weights that `network.initial` names.

    Everything below the heads is kept. Of the heads, the columns of classes that both models have are kept by name;
    those of other classes, and an auxiliary head that the earlier model lacks or has in another size, stay as they
    are. What was kept is logged and returned; None where `initial` is `random`.

    Raises `InputError` where there is no such model, or one of another architecture.
    """
    if network.initial == RANDOM:
        return None
    published = network.initial == RELEASED
    weights, earlier = (released.published_weights(model), CLASSES) if published else _earlier(network)
    kept = _fill(model, network, weights, classes, earlier)
    log.info("Weights start from %s: %s", network.initial, _sentence(kept, earlier))
    return kept


def _sentence(kept: Kept, earlier: Sequence[str]) -> str:
    parts = ["everything below the head is kept"]
    if kept.classes:
        parts.append(f"the head is kept for {', '.join(kept.classes)}")
    if kept.fresh:
        parts.append(f"it starts at random for {', '.join(kept.fresh)}")
    gone = [name for name in earlier if key(name) not in map(key, kept.classes)]
    if gone:
        parts.append(f"no longer classes: {', '.join(gone)}")
    if kept.auxiliary is not None:
        parts.append(f"the auxiliary head {'is kept' if kept.auxiliary else 'starts at random'}")
    return "; ".join(parts)


def _folder(path: str) -> str:
    """Returns the folder of the model at `path`, or of the newest of its numbered versions; local or gs://."""
    path = path.rstrip("/")
    try:
        if tf.io.gfile.exists(f"{path}/saved_model.pb"):
            return path
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(path)] if tf.io.gfile.isdir(path) else []
        versions = [name for name in names if name.isdigit() and tf.io.gfile.exists(f"{path}/{name}/saved_model.pb")]
    except tf.errors.OpError as error:
        raise InputError(f"network.initial is {path!r}, which cannot be read: {_line(error)}") from None
    if not versions:
        raise InputError(
            f"network.initial is {path!r}, where no model is; give random, released, or a folder with saved_model.pb "
            "or of numbered versions"
        )
    return f"{path}/{max(versions, key=int)}"


def _read(folder: str, name: str) -> bytes:
    try:
        with tf.io.gfile.GFile(f"{folder}/{name}", "rb") as file:
            return bytes(file.read())
    except tf.errors.OpError as error:
        raise InputError(
            f"network.initial: cannot read {name} of {folder} ({_line(error)}); training begins only from a model that "
            "was exported with its weights, by this or a later version"
        ) from None


def _line(error: tf.errors.OpError) -> str:
    return " ".join(str(error.message).split())


def _earlier(network: Network) -> tuple[dict[str, np.ndarray], Sequence[str]]:
    """Returns the weights of the model that `network.initial` names by their paths, and its classes."""
    folder = _folder(network.initial)
    metadata, weights = _read(folder, METADATA), _read(folder, WEIGHTS)
    try:
        told: dict[str, Any] = json.loads(metadata)
        with np.load(io.BytesIO(weights), allow_pickle=False) as held:
            values = {path: held[path] for path in held.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"the model in {folder} is damaged ({error}); copy or export it again") from None
    for name, ours in network.facts().items():
        if told.get(name, ours) != ours:
            raise InputError(
                f"the model in {folder} has {name} {told[name]} and network.{name} is {ours}; make them the same"
            )
    return values, told["classes"]


def _fill(
    model: keras.Model,
    network: Network,
    weights: Mapping[str, np.ndarray],
    classes: Sequence[str],
    earlier: Sequence[str],
) -> Kept:
    """Assigns what fits; nothing where something below the heads does not."""
    logits = ARCHITECTURES[network.architecture].logits

    def fits(variable: keras.Variable) -> bool:
        found, shape = _shape(weights, variable), tuple(variable.shape)
        if found is not None and _layer(variable) in logits:
            return found[:-1] == shape[:-1]
        return found == shape

    auxiliary = [variable for variable in model.variables if _layer(variable).startswith(AUXILIARY)]
    keeps_auxiliary = all(fits(variable) for variable in auxiliary)
    kept = [variable for variable in model.variables if keeps_auxiliary or not _layer(variable).startswith(AUXILIARY)]
    for variable in kept:
        if not fits(variable):
            raise InputError(
                f"network.initial is {network.initial!r}, where {variable.path} has shape {_shape(weights, variable)}, "
                f"and {tuple(variable.shape)} here; describe the same network"
            )
    places = {key(name): index for index, name in enumerate(earlier)}
    both = [(index, places[key(name)]) for index, name in enumerate(classes) if key(name) in places]
    for variable in kept:
        value = weights[variable.path]
        variable.assign(_with_columns(variable.numpy(), value, both) if _layer(variable) in logits else value)
    return Kept(
        classes=tuple(name for name in classes if key(name) in places),
        fresh=tuple(name for name in classes if key(name) not in places),
        auxiliary=keeps_auxiliary if auxiliary else None,
    )


def _layer(variable: keras.Variable) -> str:
    return str(variable.path).partition("/")[0]


def _shape(weights: Mapping[str, np.ndarray], variable: keras.Variable) -> tuple[int, ...] | None:
    return weights[variable.path].shape if variable.path in weights else None


def _with_columns(ours: np.ndarray, theirs: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Returns `ours` with the last axis's entries at the first of each pair taken from `theirs` at the second."""
    for index, earlier in pairs:
        ours[..., index] = theirs[..., earlier]
    return ours
