"""What an ingest may be told, checked once."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence

from marco_data.institutions import IMAGER_RULES, ImagerRule
from marco_model.errors import InputError
from marco_model.labels import FOUR, LabelScheme

BY_SHARD = "shard"
BY_HASH = "hash"

# One process, since the threads of a unit decode outside Python's lock; more workers pay for their start and copies.
# The runner is named since `DirectRunner` would first try to download another one.
LOCAL_BEAM_ARGS: tuple[str, ...] = (
    "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "--direct_running_mode=in_memory",
    "--direct_num_workers=1",
)


@dataclasses.dataclass(frozen=True)
class IngestOptions:
    """How records are checked and split.

    Attributes:
        split_by: `shard` takes the split from the shard's name; `hash` draws it from the plate, or the image id where
            the file name tells no plate.
        eval_share: share of plates or images that `hash` puts into the evaluation set, in (0, 1).
        max_quarantined: share of the records read above which the ingest is given up, in [0, 1].
        max_pixels: an image whose header asks for more is not decoded.
        imager_rules: which imager took an image, by institution and file name; the first that fits.
        shard_bytes: an output shard is closed once it is longer.
        decode_workers: threads that check and decode; 0 takes one a core.
        label_scheme: the classes to write, and what of a record each is taken from.
        overlay: CSV of what experts say of some images in the place of their labels, local or `gs://`; empty for none.
    """

    split_by: str = BY_SHARD
    eval_share: float = 0.1
    max_quarantined: float = 1.0
    max_pixels: int = 50_000_000
    imager_rules: tuple[ImagerRule, ...] = IMAGER_RULES
    shard_bytes: int = 100_000_000
    decode_workers: int = 0
    label_scheme: LabelScheme = FOUR
    overlay: str = ""

    def __post_init__(self) -> None:
        if self.split_by not in (BY_SHARD, BY_HASH):
            raise InputError(f"split_by is {self.split_by!r}; expected {BY_SHARD!r} or {BY_HASH!r}")
        if not 0 < self.eval_share < 1:
            raise InputError(f"eval_share is {self.eval_share}; expected a share between 0 and 1")
        if not 0 <= self.max_quarantined <= 1:
            raise InputError(f"max_quarantined is {self.max_quarantined}; expected a share from 0 to 1")
        if self.max_pixels < 1 or self.shard_bytes < 1:
            raise InputError(f"max_pixels is {self.max_pixels}, shard_bytes {self.shard_bytes}; expected at least 1")

    @property
    def threads(self) -> int:
        """The number of threads to check with, on the machine that asks."""
        return self.decode_workers or len(os.sched_getaffinity(0))


def rules_to_json(rules: Sequence[ImagerRule]) -> str:
    """Writes an imager table as a component's parameter."""
    return json.dumps([dataclasses.asdict(rule) for rule in rules])


def rules_from_json(text: str) -> tuple[ImagerRule, ...]:
    """Reads an imager table; raises `InputError` where it is none."""
    try:
        return tuple(ImagerRule(**rule) for rule in json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"imager_rules is no list of institution, imager and pattern: {error}; got {text[:80]!r}"
        ) from error
