"""How much `marco serve` does at a time, and what it accepts: each field is an option of the command."""

import dataclasses
from typing import Any

from marco_model import pixels

MEBIBYTE = 1 << 20


def option(default: float, least: int, text: str, most: int | None = None) -> Any:
    """Returns a field of which an option is made; its metadata are the smallest and largest value and the help text."""
    return dataclasses.field(default=default, metadata={"min": least, "max": most, "help": text})


@dataclasses.dataclass(frozen=True)
class Concurrency:
    """How many images are scored at a time, and how many may wait."""

    threads: int = option(0, 0, "Images scored at a time, each by a thread, a lone one by all; 0: one per usable core.")
    max_waiting: int = option(512, 1, "Images that may wait; beyond that a request gets 503.")

    @property
    def slots(self) -> int:
        """How many images are scored at a time."""
        return self.threads or pixels.cores()


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on a request, on each image in it, and on all requests that are not answered yet.

    `max_pixels` is width × height by an image's header; an image with more is not decoded. `max_body_mb` is of a body
    as it arrives. `max_inflight_mb` is at least `max_body_mb`. Beyond `max_connections` a new connection takes the
    place of one that is idle or whose request is not complete.
    """

    max_instances: int = option(128, 1, "Images in one request.")
    max_pixels: int = option(pixels.MAX_PIXELS, 1, "Pixels of an image.", pixels.MAX_PIXELS)
    max_image_mb: int = option(20, 1, "MiB of an encoded image.")
    max_body_mb: int = option(64, 1, "MiB of a request's body.")
    max_inflight_mb: int = option(256, 1, "MiB of all bodies not yet answered; beyond that a request gets 503.")
    max_connections: int = option(1000, 1, "Connections open at a time; idle and half-open ones give way to new ones.")

    @property
    def max_image_bytes(self) -> int:
        """The bound on an encoded image in bytes."""
        return self.max_image_mb * MEBIBYTE
