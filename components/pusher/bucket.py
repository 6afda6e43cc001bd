"""Versions of a model in a bucket, where nothing can be renamed and each object appears by itself.

So the order does it. The files are uploaded aside, below `.push-…/`, and checked there, which may take minutes. Then
the number is claimed by creating its `push.json`, which only one can do, and the files are copied to it within the
service, which takes a moment, `saved_model.pb` last: a version is one that has it, and has all else by then. No copy
replaces an object that is there.

What a killed push left is removed by the next of the same model, or after an hour by that of any. It may be of one that
is merely slow, so its files aside go first: without them it can't show anything more, and begins again.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import logging
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from components.pusher.names import MODEL_FILE, RECORD
from marco_data import object_store
from marco_data.object_store import Object, blob_at, list_objects, patience, reaching
from marco_model.errors import ClusterError, InputError

log = logging.getLogger(__name__)

_ASIDE = re.compile(r"\.push-(?P<mark>[0-9a-f]{16})-[0-9a-f]{8}")
_ABANDONED_SECONDS = 3600.0
_ATTEMPTS = 10
_AT_ONCE = 8
_CLEANING_SECONDS = 10.0


class _Disturbed(Exception):
    """Another push took this one for dead, or has published the same."""


def publish(model: Path, destination: str, note: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns the number of the version that `model` is below `destination`, and whether it was there already.

    `note`, with the model's `fingerprint`, is kept with it. See `components.pusher.storage.publish`.
    """
    root, mark = destination.rstrip("/"), note["fingerprint"]
    with reaching(root):
        for attempt in range(_ATTEMPTS):
            listed = _by_folder(root)
            newest = max(_versions(listed), default=0)
            if newest and _note(root, newest).get("fingerprint") == mark:
                _remove_abandoned(root, listed, mark)
                return newest, True
            _remove_abandoned(root, listed, mark if attempt == 0 else None)
            with contextlib.suppress(_Disturbed):
                return _Push(root, model, note).run(), False
    raise ClusterError(f"{root}: {_ATTEMPTS} attempts to publish were all disturbed by other pushes; run again")


def download(model: str, folder: Path) -> Path:
    """Downloads the model at the URI `model`, or the newest of its numbered versions, into `folder`; returns where.

    Raises `InputError` where there is none, `ClusterError` where the service fails.
    """
    root = model.rstrip("/")
    listed = _by_folder(root)
    newest = max(_versions(listed), default=None)
    if MODEL_FILE not in listed[""] and newest is None:
        raise InputError(f"no model at {model}: {MODEL_FILE} is expected there, or numbered versions")
    chosen = root if MODEL_FILE in listed[""] else f"{root}/{newest}"
    target = folder / chosen.rsplit("/", 1)[1]
    names = [one.uri.removeprefix(f"{chosen}/") for one in list_objects(f"{chosen}/") if not one.uri.endswith("/")]
    _each(lambda name: object_store.download(f"{chosen}/{name}", target / name), names)
    return target


class _Push:
    """One attempt: what it uploads aside, and the number that it claims."""

    def __init__(self, root: str, model: Path, note: Mapping[str, Any]) -> None:
        paths = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
        self._root = root
        self._paths = {name: path for name, path in paths.items() if name != RECORD}
        self._checksums = {name: _crc32c(path) for name, path in self._paths.items()}
        self._name = f".push-{note['fingerprint'][:16]}-{uuid.uuid4().hex[:8]}"
        self._aside = f"{root}/{self._name}"
        published = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self._note = {**note, "push": self._name, "published": published}
        self._number: int | None = None

    def run(self) -> int:
        """Publishes and returns the number; on any failure takes back what it wrote."""
        try:
            _each(lambda name: object_store.upload(self._paths[name], f"{self._aside}/{name}"), self._paths)
            self._check(self._aside, self._checksums)
            number = self._claim()
            _each(self._copy, self._paths.keys() - {MODEL_FILE})
            self._copy(MODEL_FILE)
            self._check(f"{self._root}/{number}", self._checksums)
        except BaseException:
            with contextlib.suppress(Exception):
                self._take_back()
            raise
        try:
            _delete(list_objects(f"{self._aside}/"))
        except Exception as error:  # The version is there all the same.
            log.warning("%s is published, and what was uploaded aside could not be removed: %s", number, error)
        return number

    def _check(self, place: str, checksums: Mapping[str, str]) -> None:
        """Compares what lies at `place` with the model's files."""
        found = {one.uri.removeprefix(f"{place}/"): one.crc32c for one in list_objects(f"{place}/")}
        for name, checksum in checksums.items():
            if name not in found:
                raise _Disturbed
            if found[name] != checksum:
                raise ClusterError(f"{place}/{name} arrived damaged: its CRC-32C is not {checksum}; run again")

    def _claim(self) -> int:
        from google.api_core.exceptions import PreconditionFailed

        number = max((int(place) for place in _by_folder(self._root) if place.isdigit()), default=0) + 1
        while True:
            self._number = number
            record = blob_at(f"{self._root}/{number}/{RECORD}")
            try:
                text = json.dumps(self._note, indent=1) + "\n"
                record.upload_from_string(text, "application/json", if_generation_match=0, **patience())
            except PreconditionFailed:
                # It may be ours: the answer to it may have been lost.
                if _note(self._root, number).get("push") != self._name:
                    number += 1
                    continue
            return number

    def _copy(self, name: str) -> None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        source, target = blob_at(f"{self._aside}/{name}"), blob_at(f"{self._root}/{self._number}/{name}")
        try:
            token = target.rewrite(source, if_generation_match=0, **patience())[0]
            while token:
                token = target.rewrite(source, token=token, if_generation_match=0, **patience())[0]
        except NotFound as error:
            raise _Disturbed from error
        except PreconditionFailed as error:
            target.reload(**patience())
            if target.crc32c != self._checksums[name]:
                raise _Disturbed from error

    def _take_back(self) -> None:
        """Removes what this push wrote, with little patience: what fails here is left to the next push."""
        shown = (
            self._number is not None and _note(self._root, self._number, _CLEANING_SECONDS).get("push") == self._name
        )
        for place in [f"{self._root}/{self._number}/"] * shown + [f"{self._aside}/"]:
            _delete(list_objects(place, _CLEANING_SECONDS), _CLEANING_SECONDS)


def _by_folder(root: str) -> dict[str, dict[str, Object]]:
    """Returns the objects below `root` by the first folder and by the rest of their names."""
    found: dict[str, dict[str, Object]] = defaultdict(dict)
    for one in list_objects(f"{root}/"):
        place, slash, name = one.uri.removeprefix(f"{root}/").partition("/")
        found[place if slash else ""][name if slash else place] = one
    return found


def _versions(listed: Mapping[str, Mapping[str, Object]]) -> list[int]:
    return [int(place) for place, objects in listed.items() if place.isdigit() and MODEL_FILE in objects]


def _remove_abandoned(root: str, listed: Mapping[str, Mapping[str, Object]], mark: str | None) -> None:
    """Removes what pushes left that ended without a version: those of the model `mark`, and of any if they are old.

    Numbers without our note are none of ours and stay.
    """

    def is_abandoned(objects: Iterable[Object]) -> bool:
        return time.time() - max(one.modified for one in objects) > _ABANDONED_SECONDS

    for place, objects in listed.items():
        aside = _ASIDE.fullmatch(place)
        if aside and ((mark or "").startswith(aside["mark"]) or is_abandoned(objects.values())):
            _delete(objects.values())
    for place, objects in listed.items():
        if not place.isdigit() or MODEL_FILE in objects or RECORD not in objects:
            continue
        if _note(root, int(place)).get("fingerprint") == (mark or "") or is_abandoned(objects.values()):
            left = list_objects(f"{root}/{place}/")
            if f"{root}/{place}/{MODEL_FILE}" not in (one.uri for one in left):
                _delete(left)


def _delete(objects: Iterable[Object], seconds: float | None = None) -> None:
    """Deletes these generations of objects, the model's file first and our note last; what is gone is fine."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    def rank(one: Object) -> int:
        return 0 if one.uri.endswith(f"/{MODEL_FILE}") else 2 if one.uri.endswith(f"/{RECORD}") else 1

    for one in sorted(objects, key=rank):
        with contextlib.suppress(NotFound, PreconditionFailed):
            blob_at(one.uri).delete(if_generation_match=one.generation, **patience(seconds))


def _note(root: str, number: int, seconds: float | None = None) -> dict[str, Any]:
    from google.api_core.exceptions import NotFound

    with contextlib.suppress(NotFound, ValueError):
        return dict(json.loads(blob_at(f"{root}/{number}/{RECORD}").download_as_bytes(**patience(seconds))))
    return {}


def _crc32c(path: Path) -> str:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()


def _each(work: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(work, names):
            pass
