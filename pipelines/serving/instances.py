"""One instance of a request: an image that may be scored, or the reason why it may not.

Only headers are read here; what the header does not tell is found when the image is decoded (`classify.py`).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from typing import Any

from components.example_gen.image_header import image_header
from pipelines.serving.limits import Limits

INPUT = "image_bytes"
"""The model's input, as in the SavedModel's signature `serving_default`."""


@dataclasses.dataclass(frozen=True)
class Image:
    """An encoded image, JPEG or PNG by its header, and the number of pixels that the header tells."""

    encoded: bytes
    pixels: int


@dataclasses.dataclass(frozen=True)
class Refused:
    """Why there are no scores, in one line."""

    reason: str


def from_json(instance: Any, limits: Limits) -> Image | Refused:
    """Reads an instance as TensorFlow Serving takes it: `{"image_bytes": {"b64": …}}` or `{"b64": …}`."""
    given = instance
    if isinstance(given, dict) and set(given) == {INPUT}:
        given = given[INPUT]
    if isinstance(given, dict) and set(given) == {"b64"}:
        given = given["b64"]
        if isinstance(given, str):
            return from_base64(given, limits)
    return Refused(f'expected {{"{INPUT}": {{"b64": "…"}}}} with base64 in it, got {_described(instance)}')


def from_base64(text: str, limits: Limits) -> Image | Refused:
    """Reads an image in base64 (RFC 4648, section 4); white space and missing padding are forgiven."""
    if len(text) > 2 * limits.max_image_bytes:
        return _too_long(len(text) * 3 // 4, limits)
    packed = "".join(text.split())
    try:
        encoded = base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        return Refused(f"not base64: {error}")
    return from_bytes(encoded, limits)


def from_bytes(encoded: bytes, limits: Limits) -> Image | Refused:
    """Checks an image's size in bytes, and its format and size in pixels by its header."""
    if not encoded:
        return Refused("empty")
    if len(encoded) > limits.max_image_bytes:
        return _too_long(len(encoded), limits)
    try:
        header = image_header(encoded)
    except ValueError as error:
        return Refused(f"neither a JPEG nor a PNG: {error}")
    pixels = header.width * header.height
    if pixels > limits.max_pixels:
        return Refused(f"{header.width}x{header.height} pixels, at most {limits.max_pixels} allowed")
    return Image(encoded, pixels)


def _too_long(size: int, limits: Limits) -> Refused:
    return Refused(f"an image of {size} bytes, at most {limits.max_image_bytes} allowed")


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(map(repr, value)))[:100] or 'nothing'}"
    names = {list: "a list", str: "a string", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null")
