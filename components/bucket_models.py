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
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from marco_model import store
from marco_model.errors import ClusterError, InputError
from marco_model.model_directory import MODEL_FILE, PUSH_RECORD
from marco_model.store import Object, blob_at, list_objects, patience, reaching

_ASIDE = re.compile(r"\.push-(?P<mark>[0-9a-f]{16})-[0-9a-f]{8}")
_CLAIMS, _CLAIM = ".claims", re.compile(r"(\d+)\.json")
_ABANDONED_SECONDS = 3600.0


def by_folder(root: str) -> dict[str, dict[str, Object]]:
    """Returns the objects below `root` by the first folder and by the rest of their names."""
    found: dict[str, dict[str, Object]] = defaultdict(dict)
    for one in list_objects(f"{root}/"):
        place, slash, name = one.uri.removeprefix(f"{root}/").partition("/")
        found[place if slash else ""][name if slash else place] = one
    return found


def versions(listed: Mapping[str, Mapping[str, Object]]) -> list[int]:
    """Returns the numbers that are versions: those with a model's file, which is copied last."""
    return [int(place) for place, objects in listed.items() if place.isdigit() and MODEL_FILE in objects]


def next_number(listed: Mapping[str, Mapping[str, Object]]) -> int:
    """Returns the number after all that are there or claimed."""
    return max([*(int(place) for place in listed if place.isdigit()), *_claims(listed)], default=0) + 1


def claim_at(root: str, number: int) -> str:
    """Returns the URI of the claim of a number; only one push can create it."""
    return f"{root}/{_CLAIMS}/{number}.json"


def read_note(uri: str, seconds: float | None = None) -> dict[str, Any]:
    """Returns a push's note, empty where there is none; `seconds` limits the retries."""
    from google.api_core.exceptions import NotFound

    with contextlib.suppress(NotFound, ValueError):
        return dict(json.loads(blob_at(uri).download_as_bytes(**patience(seconds))))
    return {}


def remove_abandoned(root: str, listed: Mapping[str, Mapping[str, Object]], mark: str | None) -> None:
    """Removes what pushes left that ended without a version: those of the model `mark`, and of any if they are old.

    Numbers with neither our claim nor our note are none of ours and stay.
    """

    def is_abandoned(objects: Iterable[Object]) -> bool:
        return time.time() - max(one.modified for one in objects) > _ABANDONED_SECONDS

    for place, objects in listed.items():
        aside = _ASIDE.fullmatch(place)
        if aside and ((mark or "").startswith(aside["mark"]) or is_abandoned(objects.values())):
            delete(objects.values())
    claims = _claims(listed)
    halves = {int(place) for place, objects in listed.items() if place.isdigit() and PUSH_RECORD in objects}
    for number in claims.keys() | halves.difference(versions(listed)):
        shown, claim = listed.get(str(number), {}), claims.get(number)
        note = claim or shown[PUSH_RECORD]
        if read_note(note.uri).get("fingerprint") == (mark or "") or is_abandoned([*shown.values(), note]):
            left = list_objects(f"{root}/{number}/")
            if f"{root}/{number}/{MODEL_FILE}" not in (one.uri for one in left):
                delete(left)
            delete([claim] if claim else [])


def delete(objects: Iterable[Object], seconds: float | None = None) -> None:
    """Deletes these generations of objects, the model's file first and our note last; what is gone is fine."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    def rank(one: Object) -> int:
        return 0 if one.uri.endswith(f"/{MODEL_FILE}") else 2 if one.uri.endswith(f"/{PUSH_RECORD}") else 1

    for one in sorted(objects, key=rank):
        with contextlib.suppress(NotFound, PreconditionFailed):
            blob_at(one.uri).delete(if_generation_match=one.generation, **patience(seconds))


def _claims(listed: Mapping[str, Mapping[str, Object]]) -> dict[int, Object]:
    found = {_CLAIM.fullmatch(name): one for name, one in listed.get(_CLAIMS, {}).items()}
    return {int(match[1]): one for match, one in found.items() if match}


log = logging.getLogger(__name__)

_ATTEMPTS = 10
_AT_ONCE = 8
_CLEANING_SECONDS = 10.0


class _Disturbed(Exception):
    """Another push took this one for dead, or has published the same."""


def publish(model: Path, destination: str, note: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns the number of the version that `model` is below `destination`, and whether it was there already.

    `note`, with the model's `fingerprint`, is kept with it. See `components.published_models.publish`.
    """
    root, mark = destination.rstrip("/"), note["fingerprint"]
    with reaching(root):
        for attempt in range(_ATTEMPTS):
            listed = by_folder(root)
            newest = max(versions(listed), default=0)
            if newest and read_note(f"{root}/{newest}/{PUSH_RECORD}").get("fingerprint") == mark:
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
    _each(lambda name: store.download(f"{chosen}/{name}", target / name), names)
    return target


class _Push:
    """One attempt: what it uploads aside, and the number that it claims."""

    def __init__(self, root: str, model: Path, note: Mapping[str, Any]) -> None:
        paths = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
        self._root = root
        self._paths = {name: path for name, path in paths.items() if name != PUSH_RECORD}
        self._name = f".push-{note['fingerprint'][:16]}-{uuid.uuid4().hex[:8]}"
        self._aside = f"{root}/{self._name}"
        published = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self._note = json.dumps({**note, "push": self._name, "published": published}, indent=1).encode() + b"\n"
        self._checksums = {PUSH_RECORD: _crc32c(io.BytesIO(self._note))}
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
            store.upload(self._paths[name], f"{self._aside}/{name}")
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
