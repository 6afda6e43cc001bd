"""Image files of drops: files, encoded bytes and headers."""

import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from marco_data import folder_walk
from marco_model import pictures, pixels, png
from marco_model.errors import InputError

JPEG, PNG = "JPEG", "PNG"

ENDINGS: tuple[str, ...] = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp")
"""Endings of image files, matched without regard to case."""

_PNG_START = png.SIGNATURE + b"\x00\x00\x00\x0dIHDR"
_JPEG_START = b"\xff\xd8\xff"


def as_text(path: object) -> str:
    """Returns a path as text that any file can hold: a byte of a name that is not UTF-8 shows as `\\xf6`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def find_images(paths: Iterable[str | Path]) -> folder_walk.Walk:
    """Returns the files among `paths`, and the images in folders and their subfolders: see `folder_walk.walk`.

    Folders and links that cannot be read are among the files: `encoded_image` says why.
    """
    return folder_walk.walk(paths, has_image_ending)


def has_image_ending(name: str) -> bool:
    """Returns whether a file's name ends as an image's."""
    return name.lower().endswith(ENDINGS)


def is_image_below(name: str) -> bool:
    """Returns whether a path or URI, relative to its folder, is an image's that `find_images` would return."""
    return has_image_ending(name) and not folder_walk.is_left_out_below(name)


def encoded_image(path: str | Path, bits: int | None = None) -> bytes:
    """Returns an image file as JPEG or PNG bytes that hold its one picture, upright, with 8 bits per sample.

    `bits`: see `pictures.upright`, which makes the bytes. Raises `InputError`, without the path in its message, for a
    file that cannot be read and for what `pictures.upright` refuses.
    """
    return pictures.upright(read_file(Path(path)), bits)


def read_file(path: Path) -> bytes:
    """Returns the bytes of an image file; raises `InputError`, without the path, if they are none or too many."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            os.scandir(path).close()
        elif not stat.S_ISREG(status.st_mode):
            raise InputError("not a regular file; a pipe or a device may have no end")
        with path.open("rb") as file:
            encoded = file.read(pixels.MAX_BYTES + 1)
        if len(encoded) > pixels.MAX_BYTES:
            size = max(status.st_size, len(encoded))
            raise InputError(f"{size:,} bytes are more than the {pixels.MAX_BYTES:,} accepted")
    except OSError as error:
        raise InputError(folder_walk.reason(path, error)) from None
    if not encoded:
        raise InputError("the file is empty")
    return encoded


class ImageHeader(NamedTuple):
    """Format (`JPEG` or `PNG`), size in pixels, and how many times the decoder passes over them."""

    format: str
    height: int
    width: int
    scans: int = 1


def image_header(encoded: bytes) -> ImageHeader:
    """Returns what the decoder will find in a JPEG's or PNG's header; raises `ValueError` if it finds neither.

    Raises `pixels.TooManyScans` for a JPEG that would take too long to decode.
    """
    if encoded.startswith(_PNG_START) and len(encoded) >= 24:
        width, height = struct.unpack_from(">II", encoded, 16)
        header = ImageHeader(PNG, height, width)
    elif encoded.startswith(_JPEG_START):
        jpeg = pixels.jpeg_header(encoded)
        header = ImageHeader(JPEG, jpeg.height, jpeg.width, jpeg.scans)
    else:
        raise ValueError(f"starts with {encoded[:8].hex(' ') or 'nothing'}")
    if not header.height or not header.width:
        raise ValueError(f"a {header.format} of {header.width}x{header.height} pixels")
    return header
