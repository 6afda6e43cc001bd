"""Versions of a model in a bucket, where nothing can be renamed and each object appears by itself.

So the order does it. The files are uploaded aside, below `.push-…/`, and checked there, which may take minutes. Then
the number is claimed in `.claims/`, which only one can do, and the files are copied to it within the service, which
takes a moment, `saved_model.pb` last: a version is one that has it, and has all else by then. No copy replaces an
object that is there.

A server that takes the largest number for the newest version, as TensorFlow Serving does, sees one that it cannot load
from the first of these copies to the last, and never before: a push that ends ahead of them leaves no number.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import io
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from components.pusher.bucket_layout import (
    by_folder,
    claim_at,
    delete,
    next_number,
    read_note,
    remove_abandoned,
    versions,
)
from components.pusher.names import MODEL_FILE, RECORD
from marco_data import object_store
from marco_data.object_store import blob_at, list_objects, patience, reaching
from marco_model.errors import ClusterError, InputError

log = logging.getLogger(__name__)

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
            listed = by_folder(root)
            newest = max(versions(listed), default=0)
            if newest and read_note(f"{root}/{newest}/{RECORD}").get("fingerprint") == mark:
                remove_abandoned(root, listed, mark)
                return newest, True
            remove_abandoned(root, listed, mark if attempt == 0 else None)
            with contextlib.suppress(_Disturbed):
                return _Push(root, model, note).run(), False
    raise ClusterError(f"{root}: {_ATTEMPTS} attempts to publish were all disturbed by other pushes; run again")


def download(model: str, folder: Path) -> Path:
    """Downloads the model at the URI `model`, or the newest of its numbered versions, into `folder`; returns where.

    Raises `InputError` where there is none, `ClusterError` where the service fails.
    """
    root = model.rstrip("/")
    listed = by_folder(root)
    newest = max(versions(listed), default=None)
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
        self._name = f".push-{note['fingerprint'][:16]}-{uuid.uuid4().hex[:8]}"
        self._aside = f"{root}/{self._name}"
        published = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self._note = json.dumps({**note, "push": self._name, "published": published}, indent=1).encode() + b"\n"
        self._checksums = {RECORD: _crc32c(io.BytesIO(self._note))}
        for name, path in self._paths.items():
            with path.open("rb") as file:
                self._checksums[name] = _crc32c(file)
        self._number: int | None = None
        self._is_shown = False

    def run(self) -> int:
        """Publishes and returns the number; on any failure takes back what it wrote."""
        try:
            _each(self._upload, self._checksums)
            self._check(self._aside, self._checksums)
            number = self._claim()
            self._is_shown = True
            _each(self._copy, self._checksums.keys() - {MODEL_FILE})
            self._copy(MODEL_FILE)
            self._check(f"{self._root}/{number}", self._checksums)
        except BaseException:
            with contextlib.suppress(Exception):
                self._take_back()
            raise
        try:
            delete([*list_objects(f"{self._aside}/"), *list_objects(claim_at(self._root, number))])
        except Exception as error:  # The version is there all the same.
            log.warning("%s is published, and what was uploaded aside could not be removed: %s", number, error)
        return number

    def _upload(self, name: str) -> None:
        if name in self._paths:
            object_store.upload(self._paths[name], f"{self._aside}/{name}")
        else:
            blob_at(f"{self._aside}/{name}").upload_from_string(self._note, "application/json", **patience())

    def _check(self, place: str, checksums: Mapping[str, str]) -> None:
        """Compares what lies at `place` with the model's files."""
        found = {one.uri.removeprefix(f"{place}/"): one.crc32c for one in list_objects(f"{place}/")}
        for name, checksum in checksums.items():
            if name not in found:
                raise _Disturbed
            if found[name] != checksum:
                raise ClusterError(f"{place}/{name} arrived damaged: its CRC-32C is not {checksum}; run again")

    def _claim(self) -> int:
        """Returns a number that nothing lies at and that no other push can claim."""
        number = next_number(by_folder(self._root))
        while True:
            self._number = number
            if self._is_claimed(number):
                if not list_objects(f"{self._root}/{number}/"):
                    return number
                # Another claimed it, published, and gave up the claim since we listed.
                delete(list_objects(claim_at(self._root, number)))
            number += 1

    def _is_claimed(self, number: int) -> bool:
        from google.api_core.exceptions import PreconditionFailed

        claim = blob_at(claim_at(self._root, number))
        try:
            claim.upload_from_string(self._note, "application/json", if_generation_match=0, **patience())
        except PreconditionFailed:
            return self._is_ours(number)  # The answer to ours may have been lost.
        return True

    def _is_ours(self, number: int, seconds: float | None = None) -> bool:
        return read_note(claim_at(self._root, number), seconds).get("push") == self._name

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
        places = [f"{self._aside}/"]
        if self._number is not None and self._is_ours(self._number, _CLEANING_SECONDS):
            shown = [f"{self._root}/{self._number}/"] if self._is_shown else []
            places = [*shown, claim_at(self._root, self._number), *places]
        for place in places:
            delete(list_objects(place, _CLEANING_SECONDS), _CLEANING_SECONDS)


def _crc32c(file: BinaryIO) -> str:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    while block := file.read(1 << 20):
        checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()


def _each(work: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(work, names):
            pass
