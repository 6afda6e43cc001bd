"""Format and size of an encoded image from its header alone, before anything is decoded."""

from __future__ import annotations

import struct
from typing import NamedTuple

JPEG = "JPEG"
PNG = "PNG"

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class ImageHeader(NamedTuple):
    """Format, `JPEG` or `PNG`, and size in pixels."""

    format: str
    height: int
    width: int


def image_header(encoded: bytes) -> ImageHeader:
    """Reads a JPEG's frame header (ITU T.81, B.2.2) or a PNG's IHDR; raises `ValueError` where there is none."""
    if encoded.startswith(_PNG_START) and len(encoded) >= 24:
        width, height = struct.unpack_from(">II", encoded, 16)
        header = ImageHeader(PNG, height, width)
    elif encoded.startswith(b"\xff\xd8\xff"):
        header = ImageHeader(JPEG, *_jpeg_size(encoded))
    else:
        raise ValueError(f"starts with {encoded[:8].hex(' ') or 'nothing'}")
    if not header.height or not header.width:
        raise ValueError(f"a {header.format} of {header.width}x{header.height} pixels")
    return header


def _jpeg_size(encoded: bytes) -> tuple[int, int]:
    position = 2
    while position + 9 <= len(encoded):
        if encoded[position] != 0xFF:
            break
        marker = encoded[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker in _SIZES:
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            return height, width
        elif marker in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        else:
            position += 2 + struct.unpack_from(">H", encoded, position + 2)[0]
    raise ValueError("a JPEG without a frame header")
