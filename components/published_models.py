"""Versions of a model, laid out as TensorFlow Serving and KServe read them (`DESTINATION/3/saved_model.pb`).

`publish` adds a version to a folder of this machine, also a mounted one, or to a bucket. It appears as a whole or not
at all. In a bucket folders cannot be renamed and each object appears on its own, so order makes it appear as a whole.
The files are uploaded aside, below `.push-…/`, and checked there, which may take minutes. Then the number is claimed in
`.claims/`, which only one push can do, and the files are copied to it within the service, which takes a moment.
`saved_model.pb` is copied last: a number with that file is a version, and complete. No copy replaces an object.

A server that takes the largest number for the newest version, as TensorFlow Serving does, sees a version that it cannot
load only between the first of these copies and the last: a push that ends before them leaves no number.
"""

import base64
import contextlib
import datetime
import json
import logging
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
from google.api_core.exceptions import NotFound, PreconditionFailed

from marco_model import errors, model_directory, store

log = logging.getLogger(__name__)

_ASIDE = re.compile(r"\.push-(?P<mark>[0-9a-f]{16})-[0-9a-f]{8}")
_CLAIMS, _CLAIM = ".claims", re.compile(r"(\d+)\.json")
_ABANDONED_SECONDS = 3600.0
Folders = Mapping[str, Mapping[str, store.Object]]
"""Objects by the first folder of their names, "" for none, and by the rest of their names."""
_ATTEMPTS = 10
_CLEANING_SECONDS = 10.0

RECORD_FILE = "pushed.json"
"""What the Pusher writes into its output: `pushed` (bool), and `path`, `version`, `registered_model` and
`registered_version`, which are None where they do not apply."""


class Version(NamedTuple):
    """A published version: its number, its folder or URI, and whether it existed before."""

    number: int
    path: str
    unchanged: bool


@contextlib.contextmanager
def on_this_machine(model: str) -> Iterator[Path]:
    """Yields the folder of the SavedModel at `model`, or of its newest version, downloaded first if it is in a bucket.

    The download is deleted afterwards. Raises `InputError` if there is no model, `ClusterError` if the bucket fails.
    """
    if not store.is_object(model):
        yield model_directory.saved_model_directory(model)
        return
    with tempfile.TemporaryDirectory(prefix="marco-model-") as scratch:
        yield download(model, Path(scratch))


def publish(model: Path, destination: str, note: Mapping[str, Any]) -> Version:
    """Copies the SavedModel in `model` to `destination`, a folder or `gs://BUCKET/PREFIX`, as the next version.

    If the newest version is the same model, whole, that version is returned and nothing is written. Several processes
    may publish to one destination at the same time; each gets its own number. `note` is kept in the version's
    `push.json`.

    Raises:
        InputError: `model` is not a SavedModel, or `destination` is neither, does not exist or is refused.
        ClusterError: the bucket's service fails; no version has appeared.
    """
    if store.is_remote(destination) and not store.is_object(destination):
        raise errors.InputError(
            f"cannot publish to {destination}: give gs://BUCKET/PREFIX, or a folder, mounted if need be"
        )
    if not (model / model_directory.MODEL_FILE).is_file():
        raise errors.InputError(
            f"cannot publish {model}: it holds no {model_directory.MODEL_FILE}; give the folder of a SavedModel"
        )
    publish_version = publish_in_bucket if store.is_object(destination) else publish_in_folder
    note = {**note, "fingerprint": model_directory.model_fingerprint(model)}
    number, unchanged = publish_version(model, destination, note)
    return Version(number, f"{destination.rstrip('/')}/{number}", unchanged)


def published_path(pushed_model_uri: str) -> str | None:
    """Returns the folder or `gs://` URI of the published version, or None if the model was not pushed."""
    record = f"{pushed_model_uri}/{RECORD_FILE}"
    path: str | None = store.read_json(record, missing=f"there is no {record}; run the Pusher again")["path"]
    return path


# In a folder


def folder_versions(destination: Path) -> list[int]:
    """Returns the numbers of the versions in `destination`, ascending."""
    if not destination.is_dir():
        return []
    return sorted(int(child.name) for child in destination.iterdir() if child.name.isdecimal() and child.is_dir())


def read_note(version: Path) -> dict[str, Any]:
    """Returns the note that `publish` kept with a version in a folder of this machine; empty if there is no note."""
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        return dict(json.loads((version / model_directory.PUSH_RECORD).read_text()))
    return {}


def publish_in_folder(model: Path, destination: str, note: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns the number of the version and whether it existed before; `note` has the `fingerprint`. See `publish`."""
    folder = Path(destination)
    newest = (folder_versions(folder) or [0])[-1]
    if newest and read_note(folder / str(newest)).get("fingerprint") == note["fingerprint"]:
        # The note says what was published. Files may have been lost or changed since.
        if model_directory.model_fingerprint(folder / str(newest)) == note["fingerprint"]:
            return newest, True
        log.warning("version %s in %s is damaged: the model is published again as the next version", newest, folder)
    number = newest + 1
    while not _copy(model, folder / str(number), note):
        number += 1
    return number, False


def _copy(model: Path, version: Path, note: Mapping[str, Any]) -> bool:
    """Copies the model and the note; returns False if another push has taken the number meanwhile."""
    try:
        with store.whole_directory(version) as aside:
            shutil.copytree(model, aside, dirs_exist_ok=True)
            record = aside / model_directory.PUSH_RECORD
            record.parent.mkdir(exist_ok=True)
            record.write_bytes(_as_json(note))
    except errors.InputError:
        return False
    return True


def _as_json(note: Mapping[str, Any]) -> bytes:
    published = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return json.dumps({**note, "published": published}, indent=1).encode() + b"\n"


# In a bucket


class _Disturbed(Exception):
    """Another push took this one for abandoned, or has published the same model."""


def publish_in_bucket(model: Path, destination: str, note: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns the number of the version and whether it existed before; `note` has the `fingerprint`. See `publish`."""
    root, fingerprint = destination.rstrip("/"), note["fingerprint"]
    paths = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
    paths.pop(model_directory.PUSH_RECORD, None)
    checksums = {name: _crc32c(path.read_bytes()) for name, path in paths.items()}
    with store.reaching(root):
        for attempt in range(_ATTEMPTS):
            objects = by_folder(root)
            newest = max(versions(objects), default=0)
            stored = {name: item.crc32c for name, item in objects.get(str(newest), {}).items()}
            if stored.pop(model_directory.PUSH_RECORD, None) and stored == checksums:
                remove_abandoned(root, objects, fingerprint)
                return newest, True
            remove_abandoned(root, objects, fingerprint if attempt == 0 else None)
            with contextlib.suppress(_Disturbed):
                return _Push(root, paths, checksums, note).run(), False
    raise errors.ClusterError(f"{root}: {_ATTEMPTS} attempts to publish were all disturbed by other pushes; run again")


def download(model: str, folder: Path) -> Path:
    """Downloads the model at the URI `model`, or its newest numbered version, into a new folder below `folder`.

    Returns that new folder. Raises `InputError` if there is no model, `ClusterError` if the service fails.
    """
    root = model.rstrip("/")
    objects = by_folder(root)
    newest = max(versions(objects), default=None)
    if model_directory.MODEL_FILE not in objects[""] and newest is None:
        raise errors.InputError(
            f"no model at {model}: {model_directory.MODEL_FILE} is expected there, or numbered versions"
        )
    source = root if model_directory.MODEL_FILE in objects[""] else f"{root}/{newest}"
    target = folder / source.rsplit("/", 1)[1]
    names = [uri.removeprefix(f"{source}/") for uri in store.objects_below(source) if not uri.endswith("/")]
    store.in_parallel(lambda name: store.download(f"{source}/{name}", target / name), names)
    return target


def by_folder(root: str) -> dict[str, dict[str, store.Object]]:
    """Returns the objects below `root` by the first folder and by the rest of their names."""
    folders: dict[str, dict[str, store.Object]] = {"": {}}
    for item in store.list_objects(f"{root}/"):
        folder, slash, name = item.uri.removeprefix(f"{root}/").partition("/")
        folders.setdefault(folder if slash else "", {})[name if slash else folder] = item
    return folders


def versions(folders: Folders) -> list[int]:
    """Returns the numbers that are versions: those with a model's file, which is copied last."""
    return [
        int(name) for name, objects in folders.items() if name.isdecimal() and model_directory.MODEL_FILE in objects
    ]


def next_number(folders: Folders) -> int:
    """Returns the number after all that exist or are claimed."""
    return max([*(int(name) for name in folders if name.isdecimal()), *_claims(folders)], default=0) + 1


def claim_at(root: str, number: int) -> str:
    """Returns the URI of the claim of a number; only one push can create it."""
    return f"{root}/{_CLAIMS}/{number}.json"


def _note_at(uri: str, seconds: float | None = None) -> dict[str, Any]:
    """Returns a push's note, empty if it does not exist; `seconds` limits the retries."""
    with contextlib.suppress(NotFound, ValueError):
        return dict(json.loads(store.blob_at(uri).download_as_bytes(**store.patience(seconds))))
    return {}


def remove_abandoned(root: str, folders: Folders, fingerprint: str | None) -> None:
    """Removes the remains of pushes that ended without a version: of this model, and of any model if they are old.

    Numbers with neither a claim nor a note of this project are not ours and stay.
    """

    def is_abandoned(objects: Iterable[store.Object]) -> bool:
        return time.time() - max(item.modified for item in objects) > _ABANDONED_SECONDS

    for folder, objects in folders.items():
        aside = _ASIDE.fullmatch(folder)
        if aside and ((fingerprint or "").startswith(aside["mark"]) or is_abandoned(objects.values())):
            delete(objects.values())
    claims = _claims(folders)
    noted = {
        int(folder)
        for folder, objects in folders.items()
        if folder.isdecimal() and model_directory.PUSH_RECORD in objects
    }
    for number in claims.keys() | noted.difference(versions(folders)):
        visible, claim = folders.get(str(number), {}), claims.get(number)
        note = claim or visible[model_directory.PUSH_RECORD]
        same_model = _note_at(note.uri).get("fingerprint") == (fingerprint or "")
        if same_model or is_abandoned([*visible.values(), note]):
            remains = store.list_objects(f"{root}/{number}/")
            if f"{root}/{number}/{model_directory.MODEL_FILE}" not in (item.uri for item in remains):
                delete(remains)
            delete([claim] if claim else [])


def delete(objects: Iterable[store.Object], seconds: float | None = None) -> None:
    """Deletes these generations of objects, the model's file first and the note last; missing ones are fine."""
    model_file, note = (f"/{name}" for name in (model_directory.MODEL_FILE, model_directory.PUSH_RECORD))
    for item in sorted(objects, key=lambda item: (not item.uri.endswith(model_file), item.uri.endswith(note))):
        with contextlib.suppress(NotFound, PreconditionFailed):
            store.blob_at(item.uri).delete(if_generation_match=item.generation, **store.patience(seconds))


def _claims(folders: Folders) -> dict[int, store.Object]:
    matches = {_CLAIM.fullmatch(name): item for name, item in folders.get(_CLAIMS, {}).items()}
    return {int(match[1]): item for match, item in matches.items() if match}


class _Push:
    """One attempt to publish: the files that it uploads aside, and the number that it claims."""

    def __init__(
        self, root: str, paths: Mapping[str, Path], checksums: Mapping[str, str], note: Mapping[str, Any]
    ) -> None:
        self._root = root
        self._paths = paths
        self._name = f".push-{note['fingerprint'][:16]}-{uuid.uuid4().hex[:8]}"
        self._aside = f"{root}/{self._name}"
        self._note = _as_json({**note, "push": self._name})
        self._checksums = {model_directory.PUSH_RECORD: _crc32c(self._note), **checksums}
        self._number: int | None = None
        self._is_visible = False

    def run(self) -> int:
        """Publishes and returns the number; on any failure removes what it wrote."""
        try:
            store.in_parallel(self._upload, self._checksums)
            self._check(self._aside)
            number = self._claim()
            self._is_visible = True
            store.in_parallel(self._copy, self._checksums.keys() - {model_directory.MODEL_FILE})
            self._copy(model_directory.MODEL_FILE)
            self._check(f"{self._root}/{number}")
        except BaseException:
            with contextlib.suppress(Exception):
                self._remove_own()
            raise
        try:
            delete([*store.list_objects(f"{self._aside}/"), *store.list_objects(claim_at(self._root, number))])
        except Exception as error:  # The version is published all the same.
            log.warning("version %s is published, but the upload aside could not be removed: %s", number, error)
        return number

    def _upload(self, name: str) -> None:
        uri = f"{self._aside}/{name}"
        if name in self._paths:
            store.upload(self._paths[name], uri)
        else:
            store.blob_at(uri).upload_from_string(self._note, "application/json", **store.patience())

    def _check(self, place: str) -> None:
        """Compares the objects at `place` with the model's files."""
        stored = {item.uri.removeprefix(f"{place}/"): item.crc32c for item in store.list_objects(f"{place}/")}
        for name, checksum in self._checksums.items():
            if name not in stored:
                raise _Disturbed
            if stored[name] != checksum:
                raise errors.ClusterError(f"{place}/{name} arrived damaged: its CRC-32C is not {checksum}; run again")

    def _claim(self) -> int:
        """Returns a number that is unused and that no other push can claim."""
        number = next_number(by_folder(self._root))
        while True:
            self._number = number
            if self._is_claimed(number):
                if not store.list_objects(f"{self._root}/{number}/"):
                    return number
                # Another push claimed it, published, and deleted its claim after the objects were listed.
                delete(store.list_objects(claim_at(self._root, number)))
            number += 1

    def _is_claimed(self, number: int) -> bool:
        claim = store.blob_at(claim_at(self._root, number))
        try:
            claim.upload_from_string(self._note, "application/json", if_generation_match=0, **store.patience())
        except PreconditionFailed:
            return self._is_ours(number)  # The answer to our request may have been lost.
        return True

    def _is_ours(self, number: int, seconds: float | None = None) -> bool:
        return _note_at(claim_at(self._root, number), seconds).get("push") == self._name

    def _copy(self, name: str) -> None:
        source, target = store.blob_at(f"{self._aside}/{name}"), store.blob_at(f"{self._root}/{self._number}/{name}")
        try:
            store.copy_object(source, target, if_generation_match=0)
        except NotFound as error:
            raise _Disturbed from error
        except PreconditionFailed as error:
            target.reload(**store.patience())
            if target.crc32c != self._checksums[name]:
                raise _Disturbed from error

    def _remove_own(self) -> None:
        """Removes what this push wrote, with short retries: what fails is left to the next push."""
        places = [f"{self._aside}/"]
        if self._number is not None and self._is_ours(self._number, _CLEANING_SECONDS):
            visible = [f"{self._root}/{self._number}/"] if self._is_visible else []
            places = [*visible, claim_at(self._root, self._number), *places]
        for place in places:
            delete(store.list_objects(place, _CLEANING_SECONDS), _CLEANING_SECONDS)


def _crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
