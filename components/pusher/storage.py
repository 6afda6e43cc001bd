"""Versions of a model in a folder, laid out as TensorFlow Serving reads it (`DESTINATION/3/saved_model.pb`).

A version appears by one rename of a finished copy: whoever looks sees all of it or nothing. Object stores have no such
rename; `gs://` is not taken here.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from marco_model.errors import InputError

RECORD = "assets.extra/push.json"
"""Our note in a version; the rest of it is the model as it was."""

_ASIDE = ".push-"
_ABANDONED_SECONDS = 24 * 3600.0


class Version(NamedTuple):
    """A published version: its number, its folder, and whether it was there already."""

    number: int
    path: Path
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


def versions(destination: Path) -> list[int]:
    """Returns the numbers of the versions in `destination`, ascending."""
    if not destination.is_dir():
        return []
    return sorted(int(child.name) for child in destination.iterdir() if child.name.isdigit() and child.is_dir())


def publish(model: Path, destination: str, note: Mapping[str, Any]) -> Version:
    """Copies the SavedModel in `model` to `destination` as the next version.

    If the newest version is the same model already, that one is returned and nothing is written. Several may publish to
    one destination at the same time; each gets a number of its own. `note` is kept in the version's `push.json`.

    Raises:
        InputError: `model` is no SavedModel, or `destination` is not a folder of this machine.
    """
    if "://" in destination:
        raise InputError(f"cannot publish to {destination}: give a folder of this machine or a mounted one")
    if not (model / "saved_model.pb").is_file():
        raise InputError(f"cannot publish {model}: it holds no saved_model.pb; give the folder of a SavedModel")
    folder = Path(destination)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    mark = fingerprint(model)
    newest = versions(folder)[-1:]
    if newest and _note(folder / str(newest[0])).get("fingerprint") == mark:
        return Version(newest[0], folder / str(newest[0]), True)
    aside = folder / f"{_ASIDE}{uuid.uuid4().hex}"
    try:
        _copy(model, aside, {**note, "fingerprint": mark})
        number = _appear(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return Version(number, folder / str(number), False)


def _copy(model: Path, aside: Path, note: Mapping[str, Any]) -> None:
    """Copies, adds the note, and has everything on the disk before it returns."""
    shutil.copytree(model, aside)
    record = aside / RECORD
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
    number = (versions(folder) or [0])[-1] + 1
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
        return dict(json.loads((version / RECORD).read_text()))
    return {}


def _remove_abandoned(folder: Path) -> None:
    """Removes copies that a killed pusher left a day ago; a younger one may be another's at work."""
    for aside in folder.glob(f"{_ASIDE}*"):
        with contextlib.suppress(OSError):
            if time.time() - aside.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(aside, ignore_errors=True)
