"""What one request may ask for, and all of them together."""

from __future__ import annotations

import dataclasses

MEBIBYTE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on a request, on each image in it, and on all requests that are not answered yet.

    Attributes:
        max_instances: images in one request.
        max_body_bytes: the request's body, as it comes over the network.
        max_image_bytes: one encoded image.
        max_pixels: width × height that an image's header tells; one with more is not decoded.
        max_inflight_bytes: the bodies of all requests that are not answered yet; at least `max_body_bytes`.
    """

    max_instances: int = 128
    max_body_bytes: int = 64 * MEBIBYTE
    max_image_bytes: int = 20 * MEBIBYTE
    max_pixels: int = 50_000_000
    max_inflight_bytes: int = 256 * MEBIBYTE


class RequestError(Exception):
    """A request that is refused as a whole: `status` is HTTP's, the message one line for its sender."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
