"""Checkpoints that can be trusted: one file a step, which is whole or is not there under its name.

A checkpoint is an uncompressed `.npz` of named float32 arrays, so that it does not depend on the engine that wrote it
and can be looked into with NumPy alone. It is written aside, synced to disk and then renamed. What a kill or a full
disk leaves half written keeps its other name; what is damaged later fails the checksums that every array in a zip has,
and the one before is taken.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

log = logging.getLogger(__name__)

KEPT = 2
_NAME = re.compile(r"^step-(\d{9})\.npz$")
_STEP, _BEST_STEP, _BEST_ACCURACY, _ARRAYS = "step", "best_step", "best_accuracy", "arrays"


class Checkpoint(NamedTuple):
    """`step`: how many were taken, which with the recipe's seed is the position in the data. `values`: by name.

    `best_accuracy` is −1 until there is an evaluation.
    """

    step: int
    best_step: int
    best_accuracy: float
    values: Mapping[str, np.ndarray]


def save(directory: str, checkpoint: Checkpoint) -> str:
    """Writes a checkpoint below `directory`, local or in an object store, and returns its path; keeps the last two."""
    tf.io.gfile.makedirs(directory)
    path = _path(directory, checkpoint.step)
    content = io.BytesIO()
    numbers = {
        _STEP: np.int64(checkpoint.step),
        _BEST_STEP: np.int64(checkpoint.best_step),
        _BEST_ACCURACY: np.float64(checkpoint.best_accuracy),
        # A zip's checksums are those of its members; this notices that one is missing from its directory.
        _ARRAYS: np.int64(len(checkpoint.values)),
    }
    np.savez(content, **numbers, **checkpoint.values)
    if "://" in path:
        with tf.io.gfile.GFile(path, "wb") as file:  # an object appears whole when it is closed
            file.write(content.getbuffer())
    else:
        _write_synced(path, content.getbuffer())
    for step in steps(directory)[:-KEPT]:
        tf.io.gfile.remove(_path(directory, step))
    for half in tf.io.gfile.glob(f"{directory.rstrip('/')}/step-*.npz.partial"):
        tf.io.gfile.remove(half)
    return path


def _path(directory: str, step: int) -> str:
    return f"{directory.rstrip('/')}/step-{step:09d}.npz"


def _write_synced(path: str, content: memoryview) -> None:
    """Nothing has the name before all of it is on the disk, and the name is too before this returns."""
    aside = f"{path}.partial"
    with open(aside, "wb") as file:  # noqa: PTH123 - a URI is no Path
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)  # noqa: PTH105
    folder = os.open(os.path.dirname(path), os.O_RDONLY)  # noqa: PTH120
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def steps(directory: str) -> list[int]:
    """Returns the steps of which there is a checkpoint, in order."""
    if not tf.io.gfile.isdir(directory):
        return []
    found = (_NAME.match(name.rstrip("/")) for name in tf.io.gfile.listdir(directory))
    return sorted(int(match.group(1)) for match in found if match)


def newest(directory: str) -> Checkpoint | None:
    """Returns the newest checkpoint that can be read, or None; one that can't is named in a warning."""
    for step in reversed(steps(directory)):
        path = _path(directory, step)
        try:
            return _read(path)
        except Exception as error:  # damage has many faces in zipfile and NumPy
            log.warning("Checkpoint %s can't be read (%s); taking the one before", path, error)
    return None


def _read(path: str) -> Checkpoint:
    with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    told = {name: values.pop(name) for name in (_STEP, _BEST_STEP, _BEST_ACCURACY, _ARRAYS)}
    if len(values) != int(told[_ARRAYS]):
        raise ValueError(f"{len(values)} of {told[_ARRAYS]} arrays are there")
    return Checkpoint(int(told[_STEP]), int(told[_BEST_STEP]), float(told[_BEST_ACCURACY]), values)
