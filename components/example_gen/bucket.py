"""Moving and deleting objects on `gs://`, one request each and several at once.

Beam does the same in batches of its own, knows folders only by name, and cannot be tried against an emulator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SCHEME = "gs://"
_AT_ONCE = 16


def copy_objects(pairs: Sequence[tuple[str, str]]) -> None:
    """Copies objects from URI to URI within the service."""
    _each(_copy, pairs)


def delete_objects(uris: Sequence[str]) -> None:
    """Deletes objects."""
    _each(lambda uri: _blob(uri).delete(), uris)


def objects_below(folder: str) -> list[str]:
    """Returns the URIs of all objects below a folder."""
    bucket, prefix = _parts(folder.rstrip("/") + "/")
    return [f"{SCHEME}{bucket}/{blob.name}" for blob in _client().list_blobs(bucket, prefix=prefix)]


def _copy(pair: tuple[str, str]) -> None:
    source, target = map(_blob, pair)
    token, _, _ = target.rewrite(source)
    while token:
        token, _, _ = target.rewrite(source, token=token)


def _each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(work, items):
            pass


def _blob(uri: str) -> Any:
    bucket, name = _parts(uri)
    return _client().bucket(bucket).blob(name)


def _parts(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix(SCHEME).partition("/")
    return bucket, name


@functools.cache
def _client() -> Any:
    from google.cloud import storage

    return storage.Client()
