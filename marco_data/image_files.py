"""Image files of drops: files, encoded bytes and headers.

`find_images` lists the images of folders.
`encoded_image` returns a file as JPEG or PNG, the formats that TensorFlow decodes. `image_header` reads format and size
without decoding.
"""

import io
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from marco_model.errors import InputError, translated

JPEG, PNG = "JPEG", "PNG"

ENDINGS: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
"""Endings of image files, matched without regard to case."""

MAX_PIXELS = 50_000_000
"""Largest image accepted, height times width: ten times the largest imagers', and 150 MB once decoded."""

MAX_BYTES = 256 * 2**20
"""Largest file accepted."""

_FORMATS = (JPEG, PNG, "TIFF", "BMP")
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_JPEG_START = b"\xff\xd8\xff"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))
_JPEG_START_OF_SCAN, _JPEG_END_OF_IMAGE = 0xDA, 0xD9


def as_text(path: object) -> str:
    """Returns a path as text that any file can hold: a byte of a name that is not UTF-8 shows as `\\xf6`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Returns the files among `paths`, and the images in folders and their subfolders, without repeats.

    The images of a folder come in name order. A file named explicitly is kept whatever its ending. Hidden files are
    skipped. Raises `InputError` for a path that does not exist.
    """
    images: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            children = (child for child in path.rglob("*") if child.suffix.lower() in ENDINGS)
            images.update(dict.fromkeys(sorted(c for c in children if not c.name.startswith(".") and c.is_file())))
        elif path.exists():
            images[path] = None
        else:
            raise InputError(f"no such file or folder: {path}")
    return list(images)


def encoded_image(path: str | Path) -> bytes:
    """Returns an image file as JPEG or PNG bytes.

    JPEG and PNG are returned as they are after a check of their header. TIFF (first page) and BMP are re-encoded as PNG
    without loss, except that of 16-bit samples only the upper byte is kept, as TensorFlow does with PNG. Grey, palette,
    CMYK and transparent images become RGB; transparency is dropped. Orientation tags are not applied, as in the
    published classifier.

    Raises `InputError`, without the path in its message, for any other file and one too large to decode.
    """
    encoded = _read(Path(path))
    image = _open(encoded)
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise InputError(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} accepted")
    if encoded.startswith((_JPEG_START, _PNG_START[:3])):
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
    """Opens an image; only the header is read."""
    try:
        return Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"the header states more than the {MAX_PIXELS:,} pixels accepted") from None
    except UnidentifiedImageError:
        raise InputError("not a JPEG, PNG, TIFF or BMP image") from None
    except Exception as error:  # Pillow's parsers raise whatever they meet: struct.error, SyntaxError, KeyError …
        raise InputError(f"the image header is damaged: {error}") from None


def _as_png(image: Image.Image) -> bytes:
    import numpy as np

    if image.mode in ("I", "F"):
        raise InputError("32-bit samples have no fixed range; save it with 8 or 16 bits")
    with translated(InputError, "does not decode: {}", Exception):
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        rgb = image.convert("RGB")
    png = io.BytesIO()
    rgb.save(png, "PNG", compress_level=1)
    return png.getvalue()


class ImageHeader(NamedTuple):
    """Format (`JPEG` or `PNG`) and size in pixels."""

    format: str
    height: int
    width: int


def image_header(encoded: bytes) -> ImageHeader:
    """Reads a JPEG's frame header (ITU T.81, B.2.2) or a PNG's IHDR; raises `ValueError` if it has neither."""
    if encoded.startswith(_PNG_START) and len(encoded) >= 24:
        width, height = struct.unpack_from(">II", encoded, 16)
        header = ImageHeader(PNG, height, width)
    elif encoded.startswith(_JPEG_START):
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
        elif marker in _JPEG_WITHOUT_LENGTH:
            position += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            return height, width
        elif marker in (_JPEG_START_OF_SCAN, _JPEG_END_OF_IMAGE):
            break
        else:
            position += 2 + struct.unpack_from(">H", encoded, position + 2)[0]
    raise ValueError("a JPEG without a frame header")
