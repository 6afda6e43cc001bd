"""What a check says of a record."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Overlaid(NamedTuple):
    """What an overlay did to a record: its class without the overlay, and with it, empty where it is left out."""

    image_id: int
    given: str
    became: str


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A sound record. `suffix` appended to `data` adds `institution` and `imager`; `split` is empty if by shard.

    Serialized protocol buffers that are joined are merged when parsed, so that the record itself need not be written
    anew, and its original bytes are still at hand should it prove a duplicate. Only a record to which the label scheme
    gives another class, or that an overlay names, is written anew: it is `relabelled`.
    """

    image_id: int
    digest: bytes
    split: str
    data: bytes
    suffix: bytes
    relabelled: bool
    overlaid: Overlaid | None = None


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A record for the quarantine; `image_id` is empty where it could not be read."""

    image_id: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A record that the label scheme leaves out on purpose, because of `label`; it is not looked at any further."""

    label: str
    overlaid: Overlaid | None = None


Verdict = Accepted | Rejected | LeftOut
