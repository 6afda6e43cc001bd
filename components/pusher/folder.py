"""Versions of a model in a folder.

A version appears by one rename of a finished copy: whoever looks sees all of it or nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.pusher.names import RECORD

_ASIDE = ".push-"
_ABANDONED_SECONDS = 24 * 3600.0


def versions(destination: Path) -> list[int]:
    """Returns the numbers of the versions in `destination`, ascending."""
    if not destination.is_dir():
        return []
    return sorted(int(child.name) for child in destination.iterdir() if child.name.isdigit() and child.is_dir())


def publish(model: Path, destination: str, note: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns the number of the version that `model` is in `destination`, and whether it was there already.

    `note`, with the model's `fingerprint`, is kept with it. See `components.pusher.storage.publish`.
    """
    folder = Path(destination)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    newest = versions(folder)[-1:]
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
