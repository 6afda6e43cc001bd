"""The evaluation path of `marco_model.preprocessing` in NumPy, for scoring without TensorFlow.

A JPEG is decoded by libjpeg-turbo with the settings that TensorFlow's `DecodeJpeg` uses by default, so that the pixels
are the same; the arithmetic is the same to within float32 rounding (tests/marco_model/test_pixels.py).
"""

import contextlib
import dataclasses
import functools
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from marco_model import errors, png

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 50_000_000
"""Largest image accepted, height times width: ten times the largest imagers', and 150 MB once decoded."""

MAX_BYTES = 256 * 2**20
"""Largest encoded image accepted."""

MAX_SCANS = 100
"""Most scans of a JPEG: ordinary progressive ones have about ten. Each costs a pass over all of the image, however few
bytes it has: 250 kB with 2,000 scans take 11 s (LJT-01-005, bugzilla.redhat.com/show_bug.cgi?id=1344214)."""

MAX_SCANNED = 1_000_000_000
"""Most pixels times scans of a JPEG: 20 scans of the largest image. A decoder cannot be interrupted, so this is what
bounds its time, to about three seconds."""

_JPEG_START, _PNG_START = b"\xff\xd8\xff", b"\x89PNG"
_DIRECTIONS = ((1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1), (-1, 1))
"""Steps through rows and columns for each orientation, after rows and columns of 5 to 8 are exchanged."""
_START_OF_SCAN = b"\xff\xda"
_ADOBE = re.compile(rb"(\xff\xee..Adobe.{6})(.)", re.DOTALL)
_JFIF = re.compile(rb"(\xff\xe0..JFIF\0)(.)", re.DOTALL)
_AT_THE_END = "extraneous bytes before marker 0xd9"
"""libjpeg's warning about an image that is whole: some cameras write stray bytes before its end."""
_ROWS = 32
"""Rows that are resized at a time, so that they stay in the processor's cache."""
_STRIP = 1 << 21
"""Values of a picture that are averaged over areas at a time."""
_PAGE = 1024
"""Floats in a page of memory."""


def cores() -> int:
    """Returns how many cores this process may use: at least 1, at most its container's share of the processors.

    Threads beyond that share stop one another.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS and Windows
        return os.cpu_count() or 1
    return min(len(os.sched_getaffinity(0)), container_cores())


def container_cores(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the whole cores that the control group in `folder` may use, at least 1; `sys.maxsize` without a limit.

    Both versions of control groups: kernel.org/doc/html/latest/admin-guide/cgroup-v2.html and .../cgroup-v1.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (int(number) for name in names for number in (folder / name).read_text().split())
            if quota > 0:
                return max(1, quota // period)
    return sys.maxsize


class TooManyScans(ValueError):
    """A JPEG that would take too long to decode."""


class JpegHeader(NamedTuple):
    """Size in pixels, whether the colours are four inks, and the number of scans."""

    height: int
    width: int
    is_cmyk: bool
    scans: int


def jpeg_header(encoded: bytes) -> JpegHeader:
    """Returns the header of a JPEG as libjpeg, which decodes it, reads it.

    A reader of our own would have to agree with libjpeg on every file: one that holds a second frame header in a
    comment may otherwise pass for a small image. Raises `ValueError` if there is no header, and `TooManyScans` for more
    than `MAX_SCANS` or `MAX_SCANNED`.
    """
    import simplejpeg

    # The marker cannot occur in the data of a scan, where a zero follows each 0xff.
    if (scans := encoded.count(_START_OF_SCAN)) > MAX_SCANS:
        raise TooManyScans(f"a JPEG of {scans} scans; at most {MAX_SCANS} are decoded")
    with errors.translated(ValueError, "a JPEG without a frame header", Exception):
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded, strict=False)
    if height * width <= MAX_PIXELS and height * width * scans > MAX_SCANNED:
        raise TooManyScans(f"a JPEG of {scans} scans of {width}x{height} pixels; at most {MAX_SCANNED:,} are decoded")
    return JpegHeader(height, width, colours in ("CMYK", "YCCK"), scans)


def decode(encoded: bytes) -> np.ndarray:
    """Decodes a JPEG or PNG to uint8 [height, width, 3]; 16-bit samples keep their upper byte, transparency is dropped.

    Raises `InputError` for anything else, for a file that is cut short or damaged, and for more than `MAX_PIXELS`.
    """
    return reduced(encoded, 0)


def check(encoded: bytes) -> None:
    """Raises `InputError` for what `decode` refuses; a JPEG takes less than half as long as there."""
    reduced(encoded, 1)


def reduced(encoded: bytes, side: int) -> np.ndarray:
    """Decodes as `decode` does, but a JPEG up to eight times smaller, where its sides remain `side` pixels or more."""
    with errors.translated(errors.InputError, "does not decode: {}", Exception):
        if encoded.startswith(_JPEG_START):
            return _decode_jpeg(encoded, side)
        if encoded.startswith(_PNG_START):
            return _decode_png(encoded)
        raise errors.InputError("does not decode: unknown image file format; JPEG and PNG are accepted")


def _decode_jpeg(encoded: bytes, side: int) -> np.ndarray:
    height, width, is_cmyk, _ = jpeg_header(encoded)
    check_size(height, width)
    image = _without_warnings(encoded, side, is_cmyk)
    return _from_cmyk(image, inverted=bool(_ADOBE.search(encoded))) if is_cmyk else image


def _without_warnings(encoded: bytes, side: int, is_cmyk: bool) -> np.ndarray:
    """Decodes a JPEG; raises `ValueError` where libjpeg only warns, of damage that it fills with grey.

    It reports its first warning alone. A harmless one of the header is therefore avoided, to see if others follow.
    """
    import simplejpeg

    def decoded(strict: bool) -> np.ndarray:
        return np.asarray(
            simplejpeg.decode_jpeg(
                encoded, "CMYK" if is_cmyk else "RGB", fastdct=True, fastupsample=False, min_height=side,
                min_width=side, strict=strict,
            )
        )  # fmt: skip

    try:
        return decoded(strict=True)
    except ValueError as error:
        warning = str(error).lower()
        if _AT_THE_END in warning:
            return decoded(strict=False)
        known = encoded
        if "jfif" in warning:  # An unknown version; 1 is known.
            known = _JFIF.sub(b"\\g<1>\x01", encoded, count=1)
        elif "adobe" in warning:  # An unknown colour transform, which libjpeg then takes for the usual one.
            known = _ADOBE.sub(b"\\g<1>\x02" if is_cmyk else b"\\g<1>\x01", encoded, count=1)
        if known == encoded:
            raise
        return _without_warnings(known, side, is_cmyk)


def check_size(height: int, width: int) -> None:
    """Raises `InputError` for more than `MAX_PIXELS`."""
    if height * width > MAX_PIXELS:
        raise errors.InputError(f"{width}x{height} pixels are more than the {MAX_PIXELS:,} accepted")


def _from_cmyk(image: np.ndarray, inverted: bool) -> np.ndarray:
    """Returns RGB as TensorFlow computes it; Adobe's files hold inverted inks."""
    array = np.empty((*image.shape[:2], 3), np.uint8)
    for rows in _strips(*image.shape[:2]):
        inks = (image[rows] if inverted else 255 - image[rows]).astype(np.uint16)
        array[rows] = inks[..., :3] * inks[..., 3:] // 255
    return array


def _decode_png(encoded: bytes) -> np.ndarray:
    from PIL import Image

    image: Image.Image = Image.open(io.BytesIO(plain_png(encoded)), formats=("PNG",))
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255.
        return rgb_of_grey((deep_array(image) >> 8).astype(np.uint8))
    return rgb_array(image)


def rgb_array(image: "Image.Image") -> np.ndarray:
    """Returns an opened image as uint8 [height, width, 3].

    It is converted a strip at a time: Pillow takes four bytes a pixel, and twice the array's size to make one of it.
    """
    array = np.empty((image.height, image.width, 3), np.uint8)
    for rows in _strips(image.height, image.width):
        array[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)).convert("RGB"))
    return array


def deep_array(image: "Image.Image") -> np.ndarray:
    """Returns an opened grey image of 16-bit samples as uint16 [height, width]."""
    array = np.empty((image.height, image.width), np.uint16)
    for rows in _strips(image.height, image.width):
        array[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return array


def rgb_of_grey(grey: np.ndarray) -> np.ndarray:
    """Returns uint8 [height, width] as uint8 [height, width, 3]."""
    return np.repeat(grey[..., None], 3, axis=-1)


def _strips(height: int, width: int) -> Iterator[slice]:
    """Yields the rows of an image, some `_STRIP` pixels at a time."""
    rows = max(1, _STRIP // max(1, width))
    for top in range(0, height, rows):
        yield slice(top, min(height, top + rows))


def plain_png(encoded: bytes) -> bytes:
    """Returns `png.only_pixels` of a PNG; raises `InputError` also for one that is too large to decode."""
    header = png.read_header(encoded)
    check_size(header.height, header.width)
    return png.only_pixels(encoded)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns [height, width, 3] as EXIF's orientation, 1 to 8, says that it is shown."""
    if orientation > 4:
        image = image.transpose(1, 0, 2)
    rows, columns = _DIRECTIONS[orientation - 1]
    return image[::rows, ::columns]


def picture(encoded: bytes, side: int) -> "Image.Image | None":
    """Returns what people are shown of a JPEG or PNG: the pixels of `decode`, at most `side` on the longer side; RGB.

    None if it does not decode. A JPEG is decoded at the smallest scale that is still larger, in a fraction of the time.
    """
    from PIL import Image

    try:
        shown = Image.fromarray(reduced(encoded, side))
    except errors.InputError:
        return None
    shown.thumbnail((side, side), Image.Resampling.BICUBIC)
    return shown


UNUSABLE = TOO_SMALL, BLACK, BLANK = "too small", "black", "blank"
"""Flags of pictures that show no drop that can be judged: they are no hits and come last, whatever their scores."""
_SMALLEST_SIDE = 200
"""Pixels of the shorter side; below, the published classifier's answers are no longer those for the larger image."""
_BLACK, _CONTRAST = 16, 10
"""Of 255: what 99 % of a black picture stay below, and what 98 % of a blank one lie within (real drops: 52 or more)."""
_REDUCED_SIDE = 64


def flag(encoded: bytes) -> str:
    """Returns why a JPEG or PNG shows no drop that can be judged: `too small`, `black` or `blank`; else an empty text.

    The square that the network sees is judged, reduced so that a camera's noise does not count as contrast.
    """
    try:
        brightness, shorter_side = _reduced_brightness(encoded)
    except Exception:  # Scoring says why it does not decode.
        return ""
    if shorter_side < _SMALLEST_SIDE:
        return TOO_SMALL
    square = centre_square(brightness)
    shares = np.bincount(square.ravel(), minlength=256).cumsum() / square.size
    darkest, brightest = np.searchsorted(shares, (0.01, 0.99))
    if brightest < _BLACK:
        return BLACK
    return BLANK if brightest - darkest < _CONTRAST else ""


def _reduced_brightness(encoded: bytes) -> tuple[np.ndarray, int]:
    """Returns the brightness, uint8, of an image reduced by up to 8, and its shorter side in pixels."""
    import simplejpeg
    from PIL import Image

    if encoded.startswith(_JPEG_START):
        height, width, is_cmyk, _ = jpeg_header(encoded)
        check_size(height, width)
        if not is_cmyk:
            least = {"min_height": _REDUCED_SIDE, "min_width": _REDUCED_SIDE}
            grey = simplejpeg.decode_jpeg(encoded, "GRAY", fastdct=True, strict=False, **least)
            return np.asarray(grey)[..., 0], min(height, width)
    image = Image.fromarray(decode(encoded)).convert("L")
    shorter = min(image.size)
    return np.asarray(image.reduce(max(1, min(8, shorter // _REDUCED_SIDE)))), shorter


def centre_square(image: np.ndarray) -> np.ndarray:
    """Crops [height, width, 3] to the shorter side, an odd pixel left over going to the bottom or right."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


@functools.lru_cache(maxsize=16)
def _neighbours(side: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each of `size` pixels the two of `side` that it lies between, and how far it is from the first."""
    place = np.arange(size, dtype=np.float32) * (np.float32(side) / np.float32(size))
    first = np.floor(place).astype(np.intp)
    return first, np.minimum(first + 1, side - 1), (place - first).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _columns(side: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `_neighbours` of a row of interleaved pixels, the colours one after the other."""
    first, second, share = _neighbours(side, size)
    channel = np.arange(3)[:, None]
    return (3 * first + channel).ravel(), (3 * second + channel).ravel(), np.tile(share, 3)


def _scratch(width: int) -> Iterator[np.ndarray]:
    """Yields two arrays, float32 [_ROWS, width], whose addresses differ by half a page beyond whole pages.

    Operations on two arrays at the same place in a page take up to five times as long: processors compare the lower 12
    bits of addresses to find what depends on what.
    """
    count = _ROWS * width
    for floats in np.empty((2, -(-count // _PAGE) * _PAGE + _PAGE // 2), np.float32):
        yield floats[:count].reshape(_ROWS, width)


def network_input(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes a square, uint8 [side, side, 3], as TensorFlow 1 did by default.

    Returns float32 [3, size, size] in [-1, 1].
    """
    side = image.shape[0]
    image = image.reshape(side, 3 * side)
    above, below, shares = _neighbours(side, size)
    columns, next_columns, column_shares = _columns(side, size)
    resized = np.empty((3, size, size), np.float32)
    (upper, lower), (left, right) = _scratch(3 * side), _scratch(3 * size)
    for start in range(0, size, _ROWS):
        rows = slice(start, min(start + _ROWS, size))
        count = rows.stop - start
        row, other, pixel, next_pixel = upper[:count], lower[:count], left[:count], right[:count]
        np.copyto(row, image[above[rows]])
        np.copyto(other, image[below[rows]])
        other -= row
        other *= shares[rows, None]
        row += other
        np.take(row, columns, axis=1, out=pixel, mode="clip")
        np.take(row, next_columns, axis=1, out=next_pixel, mode="clip")
        next_pixel -= pixel
        next_pixel *= column_shares
        pixel += next_pixel
        pixel *= np.float32(2 / 255)
        pixel -= 1
        resized[:, rows] = pixel.reshape(count, 3, size).transpose(1, 0, 2)
    return resized


def evaluation_image(encoded: bytes, size: int) -> np.ndarray:
    """Decodes a JPEG or PNG to the network's input, channels first: float32 [3, size, size] in [-1, 1].

    Raises `InputError` as `decode` does.
    """
    return network_input(centre_square(decode(encoded)), size)


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How an encoded image becomes a network's input, float32 [3, input_size, input_size] in [-1, 1].

    `shrink`: the arguments of `shrink`, if the network was trained on images that it shrank. Calling it raises
    `InputError` as `decode` does.
    """

    input_size: int
    shrink: Mapping[str, int] | None = None

    @classmethod
    def recorded(cls, metadata: Mapping[str, Any]) -> "Preparation":
        """Returns that of a model by what `marco_model.classifier.export` recorded of it."""
        return cls(metadata["input_size"], metadata.get("shrink"))

    def __call__(self, encoded: bytes) -> np.ndarray:
        """Returns the network's input for an encoded image."""
        return evaluation_image(shrink(encoded, **self.shrink) if self.shrink else encoded, self.input_size)


def shrink(encoded: bytes, shorter_side: int, quality: int = 95) -> bytes:
    """Re-encodes an image as a JPEG whose shorter side is `shorter_side`; smaller images are returned unchanged.

    As `preprocessing.shrink` does: each pixel is the mean of the area that it covers.
    """
    from PIL import Image

    image = decode(encoded)
    shortest = min(image.shape[:2])
    if shortest <= shorter_side:
        return encoded
    for axis in (0, 1):
        length = image.shape[axis]
        image = _mean_over_areas(image, axis, int(np.round(length * (shorter_side / shortest))))
    jpeg = io.BytesIO()
    Image.fromarray(np.round(image).astype(np.uint8)).save(jpeg, "JPEG", quality=quality, subsampling=0)
    return jpeg.getvalue()


def _mean_over_areas(image: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Shrinks an axis to `size`: float64, each value the mean of what lies between its borders."""
    along = np.moveaxis(image, axis, 0)
    length = len(along)
    # In float32, as TensorFlow computes them.
    borders = np.arange(size + 1, dtype=np.float32) * (np.float32(length) / np.float32(size))
    whole = np.minimum(borders.astype(np.intp), length - 1)
    shares = (borders.astype(np.float64) - whole).reshape(-1, *[1] * (image.ndim - 1))

    def means(part: np.ndarray) -> np.ndarray:
        sums = np.zeros((length + 1, *part.shape[1:]))
        np.cumsum(part, axis=0, out=sums[1:])
        return np.diff(sums[whole] + shares * part[whole], axis=0) * (size / length)

    # In strips, since the sums of a whole picture take 8 bytes for each of its values.
    strips = np.array_split(along, 1 + along.size // _STRIP, axis=1)
    return np.moveaxis(np.concatenate([means(strip) for strip in strips], axis=1), 0, axis)
