"""A model on disk: which folder it is, what its files are called, what it says of itself, and its fingerprint.

Free of TensorFlow, so that a wrong folder is reported at once.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from marco_model.errors import InputError
from marco_model.labels import CLASSES

MODEL_FILE = "saved_model.pb"
"""The file that makes a folder a model: a folder without it is not a version."""

PUSH_RECORD = "assets.extra/push.json"
"""The note that publishing adds to a version. All other files are those of the model that was published."""

METADATA = "assets.extra/marco.json"
"""In a model's folder, what `marco_model.classifier.export` was told of it; the published model of 2018 has none."""

PUBLISHED_NAME = "marco-2018"


def saved_model_directory(directory: str | Path) -> Path:
    """Returns `directory` if it holds a SavedModel, else its highest numbered version.

    Raises InputError if there is neither.
    """
    directory = Path(directory)
    if (directory / MODEL_FILE).is_file():
        return directory
    versions = [
        child
        for child in (directory.iterdir() if directory.is_dir() else ())
        if child.name.isdigit() and (child / MODEL_FILE).is_file()
    ]
    if not versions:
        raise InputError(f"no model in {directory}: a folder with {MODEL_FILE}, or of numbered versions, is expected")
    return max(versions, key=lambda version: int(version.name))


def read_metadata(saved_model: Path) -> dict[str, Any]:
    """Returns what `export` was told of the model in a SavedModel's folder: its `classes`, in order, and more.

    Empty for the published model, whose classes are MARCO's and whose name is PUBLISHED_NAME. Raises InputError if what
    is there is damaged.
    """
    path = saved_model / METADATA
    if not path.is_file():
        return {}
    try:
        metadata = dict(json.loads(path.read_text()))
        return metadata | {"classes": list(metadata["classes"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}); give a model exported by marco") from error


def class_names(saved_model: Path) -> list[str]:
    """Returns the classes of the model in a SavedModel's folder, in the scores' order; raises as read_metadata."""
    return list(read_metadata(saved_model).get("classes", CLASSES))


def model_fingerprint(model: Path) -> str:
    """Returns the SHA-256 of the names and contents of a model's files, PUSH_RECORD left out, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        name = path.relative_to(model).as_posix()
        if name == PUSH_RECORD:
            continue
        content = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
        digest.update(f"{name}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()
