"""Finds image files and hands over their bytes in a form that TensorFlow decodes: JPEG or PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from marco_model.errors import InputError

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
