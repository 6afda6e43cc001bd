"""Moving and deleting objects on `gs://`, one request each and several at once.

Beam does the same in batches of its own, knows folders only by name, and cannot be tried against an emulator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from marco_data.object_store import SCHEME, blob_at, list_objects, patience, reaching

__all__ = ("SCHEME", "copy_objects", "delete_objects", "objects_below")

_AT_ONCE = 8


def copy_objects(pairs: Sequence[tuple[str, str]]) -> None:
    """Copies objects from URI to URI within the service."""
    _each(_copy, pairs)


def delete_objects(uris: Sequence[str]) -> None:
    """Deletes objects; one that is gone already is fine."""
    _each(_delete, uris)


def objects_below(folder: str) -> list[str]:
    """Returns the URIs of all objects below a folder."""
    return [found.uri for found in list_objects(folder.rstrip("/") + "/")]


def _copy(pair: tuple[str, str]) -> None:
    source, target = map(blob_at, pair)
    with reaching(pair[1]):
        token, _, _ = target.rewrite(source, **patience())
        while token:
            token, _, _ = target.rewrite(source, token=token, **patience())


def _delete(uri: str) -> None:
    from google.api_core.exceptions import NotFound

    with reaching(uri), contextlib.suppress(NotFound):
        blob_at(uri).delete(**patience())


def _each(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(work, items):
            pass
