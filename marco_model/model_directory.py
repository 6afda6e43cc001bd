"""Where in a folder the model is. Free of TensorFlow, so that a wrong folder is told at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marco_model.errors import InputError
from marco_model.labels import CLASSES

METADATA = "assets.extra/marco.json"
"""In a model's folder, what `marco_model.classifier.export` was told of it; the published model of 2018 has none."""

PUBLISHED_NAME = "marco-2018"


def saved_model_directory(directory: str | Path) -> Path:
    """Returns `directory` if it holds a SavedModel, else its highest numbered version.

    Raises InputError if there is neither.
    """
    directory = Path(directory)
    if (directory / "saved_model.pb").is_file():
        return directory
    versions = [
        child
        for child in (directory.iterdir() if directory.is_dir() else ())
        if child.name.isdigit() and (child / "saved_model.pb").is_file()
    ]
    if not versions:
        raise InputError(f"no model in {directory}: a folder with saved_model.pb, or of numbered versions, is expected")
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
