"""Small JPEGs of drop images, as a page embeds them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

QUALITY = 72
SMALLEST, LARGEST = 64, 1024
_SIZES = ((800, 480), (2_500, 320))
"""Up to so many images get so many pixels: 800 of 480 are about 15 MB of HTML (docs/plates.md)."""
_SMALL = 200


class Thumbnail(NamedTuple):
    """A JPEG and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def usual_size(images: int) -> int:
    """Returns the longer side, in pixels, that keeps a page of so many images at a size that browsers open."""
    return next((size for most, size in _SIZES if images <= most), _SMALL)


def thumbnail(encoded: bytes, size: int) -> Thumbnail | None:
    """Makes a JPEG of which the longer side has `size` pixels at most; None where Pillow cannot decode the image.

    encoded: JPEG or PNG, as `marco_data.image_files.encoded_image` returns it. A JPEG is decoded at the smallest scale
    that is still larger, which takes a fraction of the time. Orientation tags are not applied, as in scoring.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG"))
        image.draft("RGB", (size, size))
        picture = _eight_bits(image).convert("RGB")
    except Exception:  # Pillow's decoders raise what they stumble over; what TensorFlow scored is listed all the same.
        return None
    picture.thumbnail((size, size), Image.Resampling.BICUBIC)
    return as_thumbnail(picture)


def as_thumbnail(picture: Image.Image) -> Thumbnail:
    """Encodes an RGB picture as it is."""
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=QUALITY)
    return Thumbnail(jpeg.getvalue(), picture.width, picture.height)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16 bits at 255 where TensorFlow takes the upper byte."""
    if not image.mode.startswith("I"):
        return image
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
