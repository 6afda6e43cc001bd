"""A model on disk: its folder, the names of its files, what it records about itself, and its fingerprint.

A model is a SavedModel. Published versions of it lie in numbered folders side by side, as TensorFlow Serving reads
them. The classifier of 2018 is one of the files of the PyPI package dls-marco-score-ispyb 1.0.1 (Apache-2.0), which
`published_package` locates. Free of TensorFlow, so that a wrong folder is reported at once.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from marco_model import errors, labels, published_package

MODEL_FILE = "saved_model.pb"
"""A folder with this file is a model; without it, a folder is not a version."""

METADATA = "assets.extra/marco.json"
"""The `metadata` of `marco_model.classifier.export`; the published classifier of 2018 has none."""

WEIGHTS = "assets.extra/weights.npz"
"""The weights as trained, with batch norms not folded in and with the auxiliary head: training can start from them."""

PUSH_RECORD = "assets.extra/push.json"
"""The note that publishing adds to a version. All other files are those of the model that was published."""

PUBLISHED_NAME = "marco-2018"
PUBLISHED_SHA256 = "d2fdbb72a05634a26d3811149c098b1767e405e7edf0b2ea24d6e72676bddb03"
"""Of the `saved_model.pb` of the classifier published in 2018."""


def saved_model_directory(directory: str | Path) -> Path:
    """Returns `directory` if it holds a SavedModel, else its highest numbered version.

    Raises `InputError` if it holds neither.
    """
    directory = Path(directory)
    if (directory / MODEL_FILE).is_file():
        return directory
    children = directory.iterdir() if directory.is_dir() else ()
    versions = [child for child in children if child.name.isdecimal() and (child / MODEL_FILE).is_file()]
    if not versions:
        raise errors.InputError(
            f"no model in {directory}: a folder with {MODEL_FILE}, or of numbered versions, is expected"
        )
    return max(versions, key=lambda version: int(version.name))


def published_directory() -> Path:
    """Returns the folder of the SavedModel that was published in 2018; its package is fetched if it is not installed.

    Raises `InputError` if there is no such package, or if it holds another file.
    """
    directory = published_package.saved_model()
    graph = directory / MODEL_FILE
    again = f"install {published_package.NAME}=={published_package.VERSION} again"
    if not graph.is_file():
        raise errors.InputError(f"{graph} is missing; {again}")
    if not is_published(directory):
        raise errors.InputError(f"{graph} has not the published sha256 {PUBLISHED_SHA256}; {again}")
    return directory


def is_published(directory: Path) -> bool:
    """Whether the SavedModel in `directory` is the one that was published in 2018."""
    return hashlib.sha256((directory / MODEL_FILE).read_bytes()).hexdigest() == PUBLISHED_SHA256


def read_metadata(saved_model: Path) -> dict[str, Any]:
    """Returns what `export` recorded about the model in a SavedModel's folder: its `classes`, in order, and more.

    Empty for the published classifier, whose classes are MARCO's and whose name is PUBLISHED_NAME. Raises `InputError`
    if the record is damaged.
    """
    path = saved_model / METADATA
    if not path.is_file():
        return {}
    try:
        metadata = dict(json.loads(path.read_text()))
        return metadata | {"classes": list(metadata["classes"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.InputError(f"{path} is damaged ({error!r}); give a model exported by marco") from error


def class_names(saved_model: Path) -> list[str]:
    """Returns the classes of the model in a SavedModel's folder, in the scores' order; raises as `read_metadata`."""
    return list(read_metadata(saved_model).get("classes", labels.CLASSES))


def model_fingerprint(model: Path) -> str:
    """Returns the SHA-256 of the names and contents of a model's files without PUSH_RECORD, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
        if (name := path.relative_to(model).as_posix()) != PUSH_RECORD:
            digest.update(f"{name}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()
