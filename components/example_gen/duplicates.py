"""Records seen more than once, found by keys: ids and digests travel, images do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from components.example_gen.staging import Place, Staged
from marco_data import reasons
from marco_data.shards import EVAL


class Loser(NamedTuple):
    """A staged record that another one makes superfluous."""

    place: Place
    image_id: int
    reason: str
    detail: str


# Of two reasons for one record the first is reported.
_RANK = (reasons.TRAIN_AND_EVAL, reasons.DUPLICATE_ID, reasons.DUPLICATE_CONTENT)


def keys(staged: Staged) -> Iterator[tuple[bytes, Staged]]:
    """Yields the two keys under which a record is compared with others."""
    yield b"id " + str(staged.image_id).encode(), staged
    yield b"digest " + staged.digest, staged


def losers(key: bytes, alike: Iterable[Staged], shard_names: Sequence[str]) -> Iterator[Loser]:
    """Yields all but one of the records with one key.

    The evaluation set's copy wins over the training set's, which protects the test; then the first in the order of
    shards and records. A record that loses by one key is out even if it would win by the other.
    `alike` may be iterated more than once.
    """
    winner = min(alike, key=_precedence)
    for record in alike:
        if record.place == winner.place:
            continue
        same_image = record.digest == winner.digest
        if same_image and record.place.split != winner.place.split:
            reason = reasons.TRAIN_AND_EVAL
        else:
            reason = reasons.DUPLICATE_ID if key.startswith(b"id ") else reasons.DUPLICATE_CONTENT
        place = winner.place
        detail = f"kept: image {winner.image_id}, record {place.record} of {shard_names[place.shard]} ({place.split})"
        yield Loser(record.place, record.image_id, reason, detail)


def foremost(found: Iterable[Loser]) -> list[Loser]:
    """Returns each record once, with the foremost of its reasons, in the order of shards and records."""
    best: dict[Place, Loser] = {}
    for loser in found:
        held = best.get(loser.place)
        if held is None or (_RANK.index(loser.reason), loser.detail) < (_RANK.index(held.reason), held.detail):
            best[loser.place] = loser
    return [best[place] for place in sorted(best)]


def _precedence(staged: Staged) -> tuple[bool, int, int]:
    return staged.place.split != EVAL, staged.place.shard, staged.place.record
