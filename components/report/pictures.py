"""Thumbnails of images, and what a score hangs on drawn over them."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier

SIDE = 320
"""Pixels of a thumbnail's longer side: sharp on a phone, about 15 kB."""
_QUALITY = 82


def thumbnail(encoded: bytes, side: int = SIDE) -> bytes:
    """Returns an encoded image as a JPEG of at most `side` pixels on the longer side."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _jpeg(small)


def overlays(
    classifier: LoadedClassifier, images: Sequence[bytes], classes: Sequence[int], samples: int, seconds: float
) -> list[bytes]:
    """Returns SmoothGrad of each image's class over what the network sees of it, as JPEGs.

    After `seconds` no other image is begun, so that there may be fewer than `images`; the first one is always made.
    """
    from PIL import Image

    from marco_model.attribution import class_gradient, smoothgrad
    from marco_model.overlay import overlay

    gradient = class_gradient(classifier.logits)
    end = time.monotonic() + seconds
    made: list[bytes] = []
    for encoded, index in zip(images, classes, strict=True):
        if made and time.monotonic() > end:
            break
        seen = classifier.images([encoded])[0]
        drawn = Image.fromarray(overlay(seen, smoothgrad(gradient, np.asarray(seen), index, samples=samples)))
        drawn.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        made.append(_jpeg(drawn))
    return made


def _jpeg(image) -> bytes:  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
