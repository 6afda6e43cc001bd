"""The picture that an image file's bytes hold: upright, with 8 bits per sample, as JPEG or PNG."""

import contextlib
import io

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from marco_model import pixels, png
from marco_model.errors import InputError, translated

_ORIENTATION, _BITS, _PHOTOMETRIC, _PAGE_KIND, _FURTHER_IMAGES = 274, 258, 262, 254, 330
"""Tags of TIFF 6.0 and EXIF."""
_REDUCED, _MASK = 1, 4
_CAMERA_BITS = (10, 12, 14)
_HIGHEST = 2**14 - 1
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TRAILING = 4096
"""Bytes that cameras may write after a JPEG's end."""


def upright(encoded: bytes, bits: int | None = None) -> bytes:
    """Returns the bytes of an image file as JPEG or PNG bytes of its one picture, upright, with 8 bits per sample.

    JPEG and PNG stay as they are unless they are turned or deep. TIFF, of which the picture is the largest page, and
    BMP become PNG without loss. Grey, palette, CMYK and transparent images become RGB; transparency is dropped.

    Orientation tags are applied. A JPEG that lacks only its last two bytes gets them. Grey samples of 16 bits keep the
    upper 8 of the camera's `bits`, 8 to 16. Without `bits` these are 16 if a sample is above 16,383, and 14, 12 or 10
    if the highest sample needs just so many; nothing else is certain. Deep colour keeps its upper byte.

    Raises `InputError` for any other file, an image that is damaged or too large to decode, and one whose pixels are
    not certain: samples as above or that do not fit `bits`, and several pages of one size.
    """
    is_jpeg, is_png = encoded.startswith(_JPEG_START), encoded.startswith(png.SIGNATURE)
    image = _open(pixels.plain_png(encoded) if is_png else encoded)
    if not (is_jpeg or is_png):
        picture = _rgb(image, bits)
        del image  # To free its memory.
        return _png_of(picture)
    pixels.check_size(image.height, image.width)
    if is_jpeg:
        encoded = _with_end(encoded, image)
    orientation, is_deep = _orientation(image), is_png and encoded[24] == 16
    rgb = _rgb(image, bits) if is_deep else None
    del image  # To free its memory.
    changed = rgb is not None and not np.array_equal(rgb, pixels.decode(encoded))
    if orientation == 1 and not changed:
        return encoded
    rgb = pixels.decode(encoded) if rgb is None else rgb
    rgb = np.ascontiguousarray(pixels.turned(rgb, orientation))  # The picture as it lay is freed before it is encoded.
    return _png_of(rgb)


def _with_end(encoded: bytes, image: Image.Image) -> bytes:
    """Returns a JPEG that lacks nothing but its end-of-image marker with that marker; else the same bytes.

    Viewers show such a file; TensorFlow and `pixels.decode` refuse it. Progressive files may lack whole scans unseen.
    """
    if _JPEG_END in encoded[-_TRAILING:] or "progressive" in image.info:
        return encoded
    with contextlib.suppress(InputError):
        pixels.decode(encoded + _JPEG_END)
        return encoded + _JPEG_END
    return encoded


def _orientation(image: Image.Image) -> int:
    """Returns the orientation that EXIF states, 1 to 8; 1, upright, for none and for any other number."""
    if "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Damaged EXIF. Viewers and TensorFlow show such an image as it lies.
        return 1
    return orientation if orientation in range(1, 9) else 1


def _open(encoded: bytes) -> Image.Image:
    """Opens an image; only the header is read."""
    try:
        return Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"the header states more than the {pixels.MAX_PIXELS:,} pixels accepted") from None
    except UnidentifiedImageError:
        if encoded.startswith(_TIFF_STARTS):
            raise InputError("the TIFF's header is damaged, or the file was cut") from None
        raise InputError("not a JPEG, PNG, TIFF or BMP image") from None
    except Exception as error:  # Pillow's parsers raise whatever they meet: struct.error, SyntaxError, KeyError …
        raise InputError(f"the image header is damaged: {error}") from None


def _rgb(image: Image.Image, bits: int | None) -> np.ndarray:
    """Returns the picture of an opened image, uint8 [height, width, 3]; Pillow turns that of a TIFF upright."""
    with translated(InputError, "does not decode: {}", Exception):
        depth, is_inverted = 16, False
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _go_to_picture(image)
            depth, is_inverted = max(image.tag_v2.get(_BITS, (1,))), image.tag_v2.get(_PHOTOMETRIC) == 0
        elif image.format != "PNG":
            depth = 8
        pixels.check_size(image.height, image.width)
        if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
            raise InputError("32-bit samples have no fixed range; save it with 8 or 16 bits")
        if image.mode.startswith("I"):
            return pixels.rgb_of_grey(
                _eight_bits(pixels.deep_array(image), bits if depth == 16 else depth, is_inverted)
            )
        rgb = pixels.rgb_array(image)
    # Pillow keeps the upper byte of deep colour.
    if depth > 8 and bits != 16 and rgb.max(initial=0) <= _HIGHEST >> 8:
        raise InputError(
            "16-bit colour without a sample above a quarter of the range, probably of a camera with 10 to 14 bits: "
            "save it with 8 bits per colour"
        )
    return rgb


def _go_to_picture(image: TiffImagePlugin.TiffImageFile) -> None:
    """Goes to the page of a TIFF that is not a thumbnail or mask; raises `InputError` unless it is one alone."""
    sizes: dict[int, int] = {}
    for page in range(image.n_frames):
        image.seek(page)
        kind = image.tag_v2.get(_PAGE_KIND, 0)
        if not kind & (_REDUCED | _MASK):
            sizes[page] = image.width * image.height
    if not sizes and image.n_frames == 1 and _FURTHER_IMAGES not in image.tag_v2:
        return
    largest = max(sizes.values(), default=0)
    pictures = [page for page, size in sizes.items() if size > largest / 2]
    if len(pictures) != 1:
        content = f"{len(pictures)} pages of about one size, such as a focus stack" if pictures else "thumbnails alone"
        raise InputError(f"a TIFF with {content}: save the image to score as a file of its own")
    image.seek(pictures[0])


def _eight_bits(samples: np.ndarray, bits: int | None, is_inverted: bool) -> np.ndarray:
    """Returns the upper 8 of `bits`, see `upright`: uint8 [height, width] of integers [height, width] below 65,536.

    `is_inverted`: 0 is white.
    """
    highest = int(samples.max(initial=0))
    needed = highest.bit_length()
    used = bits or (16 if needed in (0, 15) else needed)
    if needed > used:
        raise InputError(
            f"a sample of {highest:,} does not fit into {used} bits; give --bits {max(needed, 10)} or more"
        )
    if not bits and used < 16 and (used not in _CAMERA_BITS or is_inverted):
        raise InputError(
            f"16-bit {'inverted ' if is_inverted else ''}samples, none above {highest:,}: give the camera's bits, such "
            f"as --bits {next(camera for camera in _CAMERA_BITS if camera >= used)}, or save it with 8 bits"
        )
    grey = (samples >> (used - 8)).astype(np.uint8)
    return 255 - grey if is_inverted else grey


def _png_of(rgb: np.ndarray) -> bytes:
    png = io.BytesIO()
    Image.fromarray(rgb).save(png, "PNG", compress_level=1)
    return png.getvalue()
