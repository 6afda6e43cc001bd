"""Finds image files and hands over their bytes in a form that TensorFlow decodes: JPEG or PNG."""

from __future__ import annotations

import datetime
import io
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from marco_model.errors import InputError


class DropPlace(NamedTuple):
    """Where a drop is; an empty string stands for what the file name does not tell."""

    plate: str = ""
    well: str = ""
    drop: str = ""


class Taken(NamedTuple):
    """When an image was taken: what the file name tells of it, the rest being empty.

    `date`: ISO 8601 without a zone, `2005-09-05T20:32` or `2005-09-05`. `inspection`: the number of the plate's
    inspection, as written.
    """

    date: str = ""
    inspection: str = ""


_WELL = r"(?P<plate>[^_]+)_(?P<well>(?:[A-Z]|A[A-F])[0-9]{1,2})(?:-(?P<drop>[0-9]+))?"
_DATED = re.compile(
    _WELL + r"_(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})"
    r"(?:[T_-](?P<time>[0-9]{2}[-h:]?[0-9]{2})(?:[-m:]?[0-9]{2}s?)?(?=[_.]))?(?:_.*)?\.[^.]+",
    re.IGNORECASE,
)
_FORMULATRIX = re.compile(_WELL + r"_[^_]+_(?P<inspection>[0-9]+)\.[^.]+", re.IGNORECASE)
_HWMRI = re.compile(r"(?P<plate>X[0-9]{9})(?P<well>[0-9]{4})(?P<day>[0-9]{8})(?P<time>[0-9]{4})\.[^.]+", re.IGNORECASE)


def drop_place(filename: str) -> DropPlace:
    """Returns plate, well and drop of a base name; all empty if no convention fits."""
    told = _told(filename)
    return DropPlace(told.get("plate", ""), told.get("well", ""), told.get("drop", ""))


def taken(filename: str) -> Taken:
    """Returns when the image of this base name was taken; all empty if no convention tells."""
    told = _told(filename)
    return Taken(_date(told.get("day", ""), told.get("time", "")), told.get("inspection", ""))


def as_text(path: object) -> str:
    """Returns a path as text that any file can hold: a byte of a name that is not UTF-8 shows as `\\xf6`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _told(filename: str) -> dict[str, str]:
    """What the first convention that fits finds; a date that is none does not count."""
    dated = _DATED.fullmatch(filename)
    if dated and not _date(dated["day"], dated["time"] or ""):
        dated = None
    match = dated or _FORMULATRIX.fullmatch(filename) or _HWMRI.fullmatch(filename)
    return {name: value or "" for name, value in match.groupdict().items()} if match else {}


def _date(day: str, time: str) -> str:
    """Returns digits of a day and of an hour and minute, or none, as ISO 8601; empty where they are no date."""
    digits = re.sub(r"\D", "", day)
    try:
        if not time:
            return datetime.datetime.strptime(digits, "%Y%m%d").date().isoformat()
        moment = datetime.datetime.strptime(digits + re.sub(r"\D", "", time), "%Y%m%d%H%M")
    except ValueError:
        return ""
    return moment.isoformat(timespec="minutes")


if TYPE_CHECKING:
    from PIL import Image

ENDINGS: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
"""Matched without regard to case."""

MAX_PIXELS = 50_000_000
"""Largest image accepted, height times width: ten times the largest imagers', and 150 MB once decoded."""

MAX_BYTES = 256 * 2**20
"""Largest file accepted."""

_FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
_PASSED_ON = {b"\xff\xd8\xff": "JPEG", b"\x89PN": "PNG"}


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Returns the files among `paths`, and the images in folders and their subfolders, each once.

    What a folder holds comes in name order. A file named outright is kept whatever its ending. Hidden files are passed
    over. Raises InputError for a path that does not exist.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = (child for child in path.rglob("*") if child.suffix.lower() in ENDINGS)
            found.update(dict.fromkeys(sorted(c for c in inside if not c.name.startswith(".") and c.is_file())))
        elif path.exists():
            found[path] = None
        else:
            raise InputError(f"no such file or folder: {path}")
    return list(found)


def encoded_image(path: str | Path) -> bytes:
    """Returns an image file as JPEG or PNG bytes.

    JPEG and PNG come as they are, their header checked alone; TIFF (first page) and BMP are decoded and re-encoded as
    PNG without loss, but for 16-bit samples, of which the upper byte is kept, as TensorFlow does with PNG. Grey,
    palette, CMYK and transparent images become RGB; transparency is dropped. Orientation tags are not applied, as in
    the published classifier.

    Raises InputError, without the path in its message, for what is not such an image or is too large to decode.
    """
    encoded = _read(Path(path))
    image = _open(encoded)
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise InputError(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} accepted")
    if encoded[:3] in _PASSED_ON:
        return encoded
    return _as_png(image)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{size:,} bytes are more than the {MAX_BYTES:,} accepted")
        encoded = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None
    if not encoded:
        raise InputError("the file is empty")
    return encoded


def _open(encoded: bytes) -> Image.Image:
    """Reads the header alone."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"the header states more than the {MAX_PIXELS:,} pixels accepted") from None
    except Image.UnidentifiedImageError:
        raise InputError("not a JPEG, PNG, TIFF or BMP image") from None
    except Exception as error:  # Pillow's parsers raise what they stumble over: struct.error, SyntaxError, KeyError …
        raise InputError(f"the image header is damaged: {error}") from None


def _as_png(image: Image.Image) -> bytes:
    try:
        rgb = _eight_bits(image).convert("RGB")
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"does not decode: {error}") from None
    png = io.BytesIO()
    rgb.save(png, "PNG", compress_level=1)
    return png.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError("32-bit samples have no fixed range; save it with 8 or 16 bits")
    return image


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
