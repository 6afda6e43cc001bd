"""Which split an image belongs to, drawn so that it never changes."""

from __future__ import annotations

import hashlib

from marco_data.file_names import drop_place
from marco_data.shards import EVAL, TRAIN

SPLITS = (TRAIN, EVAL)


def hashed_split(filename: str, image_id: int, eval_share: float) -> str:
    """Returns `train` or `eval` by a hash of the plate, so that drops seen together stay together.

    Where the file name tells no plate the image id is hashed instead. The draw depends on nothing else: images added
    later do not move those already placed.
    """
    plate = drop_place(filename).plate
    return EVAL if hashed_draw(f"plate {plate}" if plate else f"image {image_id}") < eval_share else TRAIN


def hashed_draw(key: str) -> float:
    """Returns a number in [0, 1), uniform over keys, always the same for the same key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
