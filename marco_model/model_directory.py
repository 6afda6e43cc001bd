"""Where in a folder the model is. Free of TensorFlow, so that a wrong folder is told at once."""

from __future__ import annotations

from pathlib import Path

from marco_model.errors import InputError

METADATA = "assets.extra/marco.json"
"""In a model's folder, what `marco_model.export.export` was told of it; the published model of 2018 has none."""


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
