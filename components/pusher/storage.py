"""Versions of a model, laid out as TensorFlow Serving and KServe read them (`DESTINATION/3/saved_model.pb`).

`folder` has them in a folder of this machine or a mounted one, `bucket` on `gs://`. A version is there as a whole or
not at all; in a bucket its number can be seen a moment before.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components.pusher import bucket, folder
from components.pusher.names import MODEL_FILE, RECORD
from marco_data.object_store import is_object
from marco_model.errors import InputError
from marco_model.model_directory import saved_model_directory


class Version(NamedTuple):
    """A published version: its number, its folder or URI, and whether it was there already."""

    number: int
    path: str
    unchanged: bool


def fingerprint(model: Path) -> str:
    """Returns the SHA-256 of the names and contents of a model's files; our own note is left out."""
    digest = hashlib.sha256()
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        name = path.relative_to(model).as_posix()
        if name == RECORD:
            continue
        content = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
        digest.update(f"{name}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def on_this_machine(model: str) -> Iterator[Path]:
    """Yields the folder of the SavedModel at `model`, or of its newest version, downloaded where it lies in a bucket.

    What was downloaded is gone afterwards. Raises `InputError` where there is none, `ClusterError` where the bucket's
    service fails.
    """
    if not is_object(model):
        yield saved_model_directory(model)
        return
    with tempfile.TemporaryDirectory(prefix="marco-model-") as scratch:
        yield bucket.download(model, Path(scratch))


def publish(model: Path, destination: str, note: Mapping[str, Any]) -> Version:
    """Copies the SavedModel in `model` to `destination`, a folder or `gs://BUCKET/PREFIX`, as the next version.

    If the newest version is the same model already, that one is returned and nothing is written. Several may publish to
    one destination at the same time; each gets a number of its own. `note` is kept in the version's `push.json`.

    Raises:
        InputError: `model` is no SavedModel, or `destination` is neither, does not exist or is refused.
        ClusterError: the bucket's service fails; no version has appeared.
    """
    if "://" in destination and not is_object(destination):
        raise InputError(
            f"cannot publish to {destination}: give gs://BUCKET/PREFIX, or a folder, mounted where need be"
        )
    if not (model / MODEL_FILE).is_file():
        raise InputError(f"cannot publish {model}: it holds no {MODEL_FILE}; give the folder of a SavedModel")
    place = bucket if is_object(destination) else folder
    number, unchanged = place.publish(model, destination, {**note, "fingerprint": fingerprint(model)})
    return Version(number, f"{destination.rstrip('/')}/{number}", unchanged)
