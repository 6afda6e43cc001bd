"""Versions of a model in a bucket, where folders cannot be renamed and each object appears on its own.

Order makes a version appear as a whole. The files are uploaded aside, below `.push-…/`, and checked there, which may
take minutes. Then the number is claimed in `.claims/`, which only one push can do, and the files are copied to it
within the service, which takes a moment. `saved_model.pb` is copied last: a number with that file is a version, and
complete. No copy replaces an existing object.

A server that takes the largest number for the newest version, as TensorFlow Serving does, sees a version that it cannot
load only between the first of these copies and the last: a push that ends before them leaves no number.
"""

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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from marco_model import store
from marco_model.errors import ClusterError, InputError
from marco_model.model_directory import MODEL_FILE, PUSH_RECORD
from marco_model.store import Object, blob_at, list_objects, patience

log = logging.getLogger(__name__)

_ASIDE = re.compile(r"\.push-(?P<mark>[0-9a-f]{16})-[0-9a-f]{8}")
_CLAIMS, _CLAIM = ".claims", re.compile(r"(\d+)\.json")
_ABANDONED_SECONDS = 3600.0
Folders = Mapping[str, Mapping[str, Object]]
"""Objects by the first folder of their names, "" for none, and by the rest of their names."""
_ATTEMPTS = 10
_CLEANING_SECONDS = 10.0


class _Disturbed(Exception):
    """Another push took this one for abandoned, or has published the same model."""


def publish(model: Path, destination: str, note: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns the number of the version of `model` below `destination`, and whether it existed before.

    `note`, with the model's `fingerprint`, is kept with it. See `components.published_models.publish`.
    """
    root, fingerprint = destination.rstrip("/"), note["fingerprint"]
    with store.reaching(root):
        for attempt in range(_ATTEMPTS):
            objects = by_folder(root)
            newest = max(versions(objects), default=0)
            if newest and read_note(f"{root}/{newest}/{PUSH_RECORD}").get("fingerprint") == fingerprint:
                remove_abandoned(root, objects, fingerprint)
                return newest, True
            remove_abandoned(root, objects, fingerprint if attempt == 0 else None)
            with contextlib.suppress(_Disturbed):
                return _Push(root, model, note).run(), False
    raise ClusterError(f"{root}: {_ATTEMPTS} attempts to publish were all disturbed by other pushes; run again")


def download(model: str, folder: Path) -> Path:
    """Downloads the model at the URI `model`, or its newest numbered version, into a new folder below `folder`.

    Returns that new folder. Raises `InputError` if there is no model, `ClusterError` if the service fails.
    """
    root = model.rstrip("/")
    objects = by_folder(root)
    newest = max(versions(objects), default=None)
    if MODEL_FILE not in objects[""] and newest is None:
        raise InputError(f"no model at {model}: {MODEL_FILE} is expected there, or numbered versions")
    source = root if MODEL_FILE in objects[""] else f"{root}/{newest}"
    target = folder / source.rsplit("/", 1)[1]
    names = [uri.removeprefix(f"{source}/") for uri in store.objects_below(source) if not uri.endswith("/")]
    store.in_parallel(lambda name: store.download(f"{source}/{name}", target / name), names)
    return target


def by_folder(root: str) -> dict[str, dict[str, Object]]:
    """Returns the objects below `root` by the first folder and by the rest of their names."""
    folders: dict[str, dict[str, Object]] = defaultdict(dict)
    for item in list_objects(f"{root}/"):
        folder, slash, name = item.uri.removeprefix(f"{root}/").partition("/")
        folders[folder if slash else ""][name if slash else folder] = item
    return folders


def versions(folders: Folders) -> list[int]:
    """Returns the numbers that are versions: those with a model's file, which is copied last."""
    return [int(name) for name, objects in folders.items() if name.isdigit() and MODEL_FILE in objects]


def next_number(folders: Folders) -> int:
    """Returns the number after all that exist or are claimed."""
    return max([*(int(name) for name in folders if name.isdigit()), *_claims(folders)], default=0) + 1


def claim_at(root: str, number: int) -> str:
    """Returns the URI of the claim of a number; only one push can create it."""
    return f"{root}/{_CLAIMS}/{number}.json"


def read_note(uri: str, seconds: float | None = None) -> dict[str, Any]:
    """Returns a push's note, empty if it does not exist; `seconds` limits the retries."""
    from google.api_core.exceptions import NotFound

    with contextlib.suppress(NotFound, ValueError):
        return dict(json.loads(blob_at(uri).download_as_bytes(**patience(seconds))))
    return {}


def remove_abandoned(root: str, folders: Folders, fingerprint: str | None) -> None:
    """Removes the remains of pushes that ended without a version: of this model, and of any model if they are old.

    Numbers with neither a claim nor a note of this project are not ours and stay.
    """

    def is_abandoned(objects: Iterable[Object]) -> bool:
        return time.time() - max(item.modified for item in objects) > _ABANDONED_SECONDS

    for folder, objects in folders.items():
        aside = _ASIDE.fullmatch(folder)
        if aside and ((fingerprint or "").startswith(aside["mark"]) or is_abandoned(objects.values())):
            delete(objects.values())
    claims = _claims(folders)
    noted = {int(folder) for folder, objects in folders.items() if folder.isdigit() and PUSH_RECORD in objects}
    for number in claims.keys() | noted.difference(versions(folders)):
        visible, claim = folders.get(str(number), {}), claims.get(number)
        note = claim or visible[PUSH_RECORD]
        same_model = read_note(note.uri).get("fingerprint") == (fingerprint or "")
        if same_model or is_abandoned([*visible.values(), note]):
            remains = list_objects(f"{root}/{number}/")
            if f"{root}/{number}/{MODEL_FILE}" not in (item.uri for item in remains):
                delete(remains)
            delete([claim] if claim else [])


def delete(objects: Iterable[Object], seconds: float | None = None) -> None:
    """Deletes these generations of objects, the model's file first and the note last; missing ones are fine."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    def rank(item: Object) -> int:
        return 0 if item.uri.endswith(f"/{MODEL_FILE}") else 2 if item.uri.endswith(f"/{PUSH_RECORD}") else 1

    for item in sorted(objects, key=rank):
        with contextlib.suppress(NotFound, PreconditionFailed):
            blob_at(item.uri).delete(if_generation_match=item.generation, **patience(seconds))


def _claims(folders: Folders) -> dict[int, Object]:
    matches = {_CLAIM.fullmatch(name): item for name, item in folders.get(_CLAIMS, {}).items()}
    return {int(match[1]): item for match, item in matches.items() if match}


class _Push:
    """One attempt to publish: the files that it uploads aside, and the number that it claims."""

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
        self._is_visible = False

    def run(self) -> int:
        """Publishes and returns the number; on any failure removes what it wrote."""
        try:
            store.in_parallel(self._upload, self._checksums)
            self._check(self._aside, self._checksums)
            number = self._claim()
            self._is_visible = True
            store.in_parallel(self._copy, self._checksums.keys() - {MODEL_FILE})
            self._copy(MODEL_FILE)
            self._check(f"{self._root}/{number}", self._checksums)
        except BaseException:
            with contextlib.suppress(Exception):
                self._remove_own()
            raise
        try:
            delete([*list_objects(f"{self._aside}/"), *list_objects(claim_at(self._root, number))])
        except Exception as error:  # The version is published all the same.
            log.warning("version %s is published, but the upload aside could not be removed: %s", number, error)
        return number

    def _upload(self, name: str) -> None:
        if name in self._paths:
            store.upload(self._paths[name], f"{self._aside}/{name}")
        else:
            blob_at(f"{self._aside}/{name}").upload_from_string(self._note, "application/json", **patience())

    def _check(self, place: str, checksums: Mapping[str, str]) -> None:
        """Compares the objects at `place` with the model's files."""
        stored = {item.uri.removeprefix(f"{place}/"): item.crc32c for item in list_objects(f"{place}/")}
        for name, checksum in checksums.items():
            if name not in stored:
                raise _Disturbed
            if stored[name] != checksum:
                raise ClusterError(f"{place}/{name} arrived damaged: its CRC-32C is not {checksum}; run again")

    def _claim(self) -> int:
        """Returns a number that is unused and that no other push can claim."""
        number = next_number(by_folder(self._root))
        while True:
            self._number = number
            if self._is_claimed(number):
                if not list_objects(f"{self._root}/{number}/"):
                    return number
                # Another push claimed it, published, and deleted its claim after the objects were listed.
                delete(list_objects(claim_at(self._root, number)))
            number += 1

    def _is_claimed(self, number: int) -> bool:
        from google.api_core.exceptions import PreconditionFailed

        claim = blob_at(claim_at(self._root, number))
        try:
            claim.upload_from_string(self._note, "application/json", if_generation_match=0, **patience())
        except PreconditionFailed:
            return self._is_ours(number)  # The answer to our request may have been lost.
        return True

    def _is_ours(self, number: int, seconds: float | None = None) -> bool:
        return read_note(claim_at(self._root, number), seconds).get("push") == self._name

    def _copy(self, name: str) -> None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        source, target = blob_at(f"{self._aside}/{name}"), blob_at(f"{self._root}/{self._number}/{name}")
        try:
            store.copy_object(source, target, if_generation_match=0)
        except NotFound as error:
            raise _Disturbed from error
        except PreconditionFailed as error:
            target.reload(**patience())
            if target.crc32c != self._checksums[name]:
                raise _Disturbed from error

    def _remove_own(self) -> None:
        """Removes what this push wrote, with short retries: what fails is left to the next push."""
        places = [f"{self._aside}/"]
        if self._number is not None and self._is_ours(self._number, _CLEANING_SECONDS):
            visible = [f"{self._root}/{self._number}/"] if self._is_visible else []
            places = [*visible, claim_at(self._root, self._number), *places]
        for place in places:
            delete(list_objects(place, _CLEANING_SECONDS), _CLEANING_SECONDS)


def _crc32c(file: BinaryIO) -> str:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    while block := file.read(1 << 20):
        checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()
