"""Versions of a model, laid out as TensorFlow Serving and KServe read them (`DESTINATION/3/saved_model.pb`).

`publish` adds a version to a folder of this machine, also a mounted one, which is done here, or to a bucket
(`components.bucket_models`). A version appears as a whole or not at all; in a bucket its number can be seen a moment
before. The other functions read what the Pusher recorded and open a published model.
"""

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
from marco_model import model_directory, store
from marco_model.errors import InputError

RECORD_FILE = "pushed.json"
"""What the Pusher writes into its output about the model that it pushed."""

_ASIDE = ".push-"
_ABANDONED_SECONDS = 24 * 3600.0


class Version(NamedTuple):
    """A published version: its number, its folder or URI, and whether it existed before."""

    number: int
    path: str
    unchanged: bool


@contextlib.contextmanager
def on_this_machine(model: str) -> Iterator[Path]:
    """Yields the folder of the SavedModel at `model`, or of its newest version, downloaded first if it is in a bucket.

    The download is deleted afterwards. Raises `InputError` if there is no model, `ClusterError` if the bucket's service
    fails.
    """
    if not store.is_object(model):
        yield model_directory.saved_model_directory(model)
        return
    with tempfile.TemporaryDirectory(prefix="marco-model-") as scratch:
        yield bucket_models.download(model, Path(scratch))


def publish(model: Path, destination: str, note: Mapping[str, Any]) -> Version:
    """Copies the SavedModel in `model` to `destination`, a folder or `gs://BUCKET/PREFIX`, as the next version.

    If the newest version is the same model, that version is returned and nothing is written. Several processes may
    publish to one destination at the same time; each gets its own number. `note` is kept in the version's `push.json`.

    Raises:
        InputError: `model` is not a SavedModel, or `destination` is neither, does not exist or is refused.
        ClusterError: the bucket's service fails; no version has appeared.
    """
    if store.is_remote(destination) and not store.is_object(destination):
        raise InputError(f"cannot publish to {destination}: give gs://BUCKET/PREFIX, or a folder, mounted if need be")
    if not (model / model_directory.MODEL_FILE).is_file():
        raise InputError(
            f"cannot publish {model}: it holds no {model_directory.MODEL_FILE}; give the folder of a SavedModel"
        )
    publish_version = bucket_models.publish if store.is_object(destination) else publish_in_folder
    note = {**note, "fingerprint": model_directory.model_fingerprint(model)}
    number, unchanged = publish_version(model, destination, note)
    return Version(number, f"{destination.rstrip('/')}/{number}", unchanged)


def read_push(pushed_model_uri: str) -> dict[str, Any]:
    """Returns `pushed` (bool), `path` and `version` of the published model, `registered_model`, `registered_version`.

    Values that do not apply are None.
    """
    path = os.path.join(pushed_model_uri, RECORD_FILE)  # noqa: PTH118 - may be an object-store URI
    return dict(json.loads(store.read_bytes(path)))


def published_path(pushed_model_uri: str) -> str | None:
    """Returns the folder or `gs://` URI of the published version, or None if the model was not pushed."""
    path = read_push(pushed_model_uri)["path"]
    return None if path is None else str(path)


# In a folder


def folder_versions(destination: Path) -> list[int]:
    """Returns the numbers of the versions in `destination`, ascending."""
    if not destination.is_dir():
        return []
    return sorted(int(child.name) for child in destination.iterdir() if child.name.isdigit() and child.is_dir())


def publish_in_folder(model: Path, destination: str, note: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns the number of the version of `model` in `destination`, and whether it existed before.

    `note`, with the model's `fingerprint`, is kept with it. See `publish`.
    """
    folder = Path(destination)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    newest = folder_versions(folder)[-1:]
    if newest and _read_note(folder / str(newest[0])).get("fingerprint") == note["fingerprint"]:
        return newest[0], True
    aside = folder / f"{_ASIDE}{uuid.uuid4().hex}"
    try:
        _copy(model, aside, note)
        number = _rename_to_next_number(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return number, False


def _copy(model: Path, aside: Path, note: Mapping[str, Any]) -> None:
    """Copies the model, adds the note, and returns when everything is on the disk."""
    shutil.copytree(model, aside)
    record = aside / model_directory.PUSH_RECORD
    record.parent.mkdir(exist_ok=True)
    published = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    record.write_text(json.dumps({**note, "published": published}, indent=1) + "\n")
    for path in [*aside.rglob("*"), aside]:
        store.sync(path)


def _rename_to_next_number(aside: Path, folder: Path) -> int:
    """Renames the copy to the next free number; a folder that is not empty is another pusher's and never replaced."""
    number = (folder_versions(folder) or [0])[-1] + 1
    while True:
        try:
            aside.rename(folder / str(number))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            number += 1
            continue
        store.sync(folder)
        return number


def _read_note(version: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((version / model_directory.PUSH_RECORD).read_text()))
    return {}


def _remove_abandoned(folder: Path) -> None:
    """Removes copies that a killed pusher left a day ago or longer; a younger one may still be in use."""
    for aside in folder.glob(f"{_ASIDE}*"):
        with contextlib.suppress(OSError):
            if time.time() - aside.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(aside, ignore_errors=True)
