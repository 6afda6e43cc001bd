"""Versions of a model, laid out as TensorFlow Serving and KServe read them (`DESTINATION/3/saved_model.pb`).

`folder` has them in a folder of this machine or a mounted one, `bucket` on `gs://`. A version is there as a whole or
not at all; in a bucket its number can be seen a moment before.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components import bucket_models
from marco_model.errors import InputError
from marco_model.model_directory import MODEL_FILE, PUSH_RECORD, model_fingerprint, saved_model_directory
from marco_model.store import is_object, read_bytes

_ASIDE = ".push-"
_ABANDONED_SECONDS = 24 * 3600.0


def folder_versions(destination: Path) -> list[int]:
    """Returns the numbers of the versions in `destination`, ascending."""
    if not destination.is_dir():
        return []
    return sorted(int(child.name) for child in destination.iterdir() if child.name.isdigit() and child.is_dir())


def publish_in_folder(model: Path, destination: str, note: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns the number of the version that `model` is in `destination`, and whether it was there already.

    `note`, with the model's `fingerprint`, is kept with it. See `components.published_models.publish`.
    """
    folder = Path(destination)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    newest = folder_versions(folder)[-1:]
    if newest and _note(folder / str(newest[0])).get("fingerprint") == note["fingerprint"]:
        return newest[0], True
    aside = folder / f"{_ASIDE}{uuid.uuid4().hex}"
    try:
        _copy(model, aside, note)
        number = _appear(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return number, False


def _copy(model: Path, aside: Path, note: Mapping[str, Any]) -> None:
    """Copies, adds the note, and has everything on the disk before it returns."""
    shutil.copytree(model, aside)
    record = aside / PUSH_RECORD
    record.parent.mkdir(exist_ok=True)
    published = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    record.write_text(json.dumps({**note, "published": published}, indent=1) + "\n")
    for path in [*aside.rglob("*"), aside]:
        _to_disk(path)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _appear(aside: Path, folder: Path) -> int:
    """Renames the copy to the next free number. A folder that is not empty is never replaced: another pusher has it."""
    number = (folder_versions(folder) or [0])[-1] + 1
    while True:
        try:
            aside.rename(folder / str(number))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            number += 1
            continue
        _to_disk(folder)
        return number


def _note(version: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((version / PUSH_RECORD).read_text()))
    return {}


def _remove_abandoned(folder: Path) -> None:
    """Removes copies that a killed pusher left a day ago; a younger one may be another's at work."""
    for aside in folder.glob(f"{_ASIDE}*"):
        with contextlib.suppress(OSError):
            if time.time() - aside.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(aside, ignore_errors=True)


RECORD_FILE = "pushed.json"


def pushed(pushed_model_uri: str) -> dict[str, Any]:
    """Returns `pushed` (bool), `path` and `version` of the published model, `registered_model`, `registered_version`.

    What does not apply is None.
    """
    path = os.path.join(pushed_model_uri, RECORD_FILE)  # noqa: PTH118 - may be an object-store URI
    return dict(json.loads(read_bytes(path)))


def published(pushed_model_uri: str) -> str | None:
    """Returns the folder or `gs://` URI of the published version, or None if the model was not pushed."""
    path = pushed(pushed_model_uri)["path"]
    return None if path is None else str(path)


class Version(NamedTuple):
    """A published version: its number, its folder or URI, and whether it was there already."""

    number: int
    path: str
    unchanged: bool


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
        yield bucket_models.download(model, Path(scratch))


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
    push = bucket_models.publish if is_object(destination) else publish_in_folder
    number, unchanged = push(model, destination, {**note, "fingerprint": model_fingerprint(model)})
    return Version(number, f"{destination.rstrip('/')}/{number}", unchanged)
