"""What lies below a destination in a bucket, and the clearing of what pushes left that ended early.

    3/saved_model.pb and more    a version
    .claims/4.json               the note of the push that copies its files to the number 4, which is taken by it
    .push-…/saved_model.pb …     a model on its way

Servers take names that are numbers for versions, whatever lies there, so nothing else is kept below a number.

What a killed push left is removed by the next of the same model, or after an hour by that of any. It may be of one that
is merely slow, so its files aside go first: without them it can't show anything more, and begins again.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from components.pusher.names import MODEL_FILE, RECORD
from marco_data.object_store import Object, blob_at, list_objects, patience

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
    halves = {int(place) for place, objects in listed.items() if place.isdigit() and RECORD in objects}
    for number in claims.keys() | halves.difference(versions(listed)):
        shown, claim = listed.get(str(number), {}), claims.get(number)
        note = claim or shown[RECORD]
        if read_note(note.uri).get("fingerprint") == (mark or "") or is_abandoned([*shown.values(), note]):
            left = list_objects(f"{root}/{number}/")
            if f"{root}/{number}/{MODEL_FILE}" not in (one.uri for one in left):
                delete(left)
            delete([claim] if claim else [])


def delete(objects: Iterable[Object], seconds: float | None = None) -> None:
    """Deletes these generations of objects, the model's file first and our note last; what is gone is fine."""
    from google.api_core.exceptions import NotFound, PreconditionFailed

    def rank(one: Object) -> int:
        return 0 if one.uri.endswith(f"/{MODEL_FILE}") else 2 if one.uri.endswith(f"/{RECORD}") else 1

    for one in sorted(objects, key=rank):
        with contextlib.suppress(NotFound, PreconditionFailed):
            blob_at(one.uri).delete(if_generation_match=one.generation, **patience(seconds))


def _claims(listed: Mapping[str, Mapping[str, Object]]) -> dict[int, Object]:
    found = {_CLAIM.fullmatch(name): one for name, one in listed.get(_CLAIMS, {}).items()}
    return {int(match[1]): one for match, one in found.items() if match}
