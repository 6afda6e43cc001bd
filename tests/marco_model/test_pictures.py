"""The pixels that the classifier gets of deep, inverted, turned and many-paged images, and what people are shown."""

import io
import struct
import zlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from marco_model import errors, pictures, pixels

ORIENTATION = 274
BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""The orientation that undoes another."""


def grey(height=40, width=56, seed=0):
    """A picture whose values reach from 0 to 255, uint8 [height, width]."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    values[0, :2] = 0, 255
    return values


def colour(**options):
    return np.stack([grey(seed=seed, **options) for seed in range(3)], axis=-1)


def deep_png(samples):
    """Encodes uint16 [height, width, 3], which Pillow does not write."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(samples, photometric=1, bits=16, order="<"):
    """Encodes uint16 [height, width] or [height, width, 3], which Pillow writes in part only."""
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    data = samples.astype(f"{order}u2").tobytes()
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 0),
        (277, 3, channels), (278, 4, height), (279, 4, len(data)),
    ]  # fmt: skip
    size = 8 + 2 + 12 * len(tags) + 4
    packed = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8) + struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        if tag == 258 and channels == 3:
            entry = struct.pack(f"{order}HHII", tag, kind, 3, size)
        elif tag == 273:
            entry = struct.pack(f"{order}HHII", tag, kind, 1, size + 6)
        else:
            entry = struct.pack(f"{order}HHI", tag, kind, 1) + (
                struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
            )
        packed += entry
    return packed + bytes(4) + struct.pack(f"{order}3H", bits, bits, bits) + data


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(encoded):
    """Returns the pixels that the network gets of a file's content, and checks that people are shown the same."""
    upright = pictures.upright(encoded)
    network = pixels.decode(upright)
    shown = np.asarray(pixels.picture(upright, max(network.shape)))
    if upright.startswith(b"\x89PNG"):
        np.testing.assert_array_equal(shown, network)
    else:
        assert np.abs(shown.astype(int) - network).mean() < 3
    return network


def as_rgb(picture):
    return np.repeat(picture[..., None], 3, axis=-1) if picture.ndim == 2 else picture


def deep(picture, bits):
    """The samples of a camera of so many bits, with noise below the upper 8 of them."""
    noise = np.random.default_rng(1).integers(0, 2 ** (bits - 8), picture.shape)
    return (picture.astype(np.uint16) << (bits - 8)) + noise.astype(np.uint16)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big endian"])
def test_a_cameras_bits_become_eight(bits, kind):
    picture = grey()
    samples = deep(picture, bits)
    image = Image.fromarray(samples)
    encoded = tiff(samples, order=">") if kind == "big endian" else saved(image, kind)
    np.testing.assert_array_equal(seen(encoded), as_rgb(picture))


@hypothesis.given(st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1))
@hypothesis.settings(deadline=None)
def test_deep_grey_is_certain_or_refused(highest, seed):
    samples = np.random.default_rng(seed).integers(0, highest + 1, (6, 7)).astype(np.uint16)
    samples[2, 3] = highest
    encoded = saved(Image.fromarray(samples), "PNG")
    bits = {0: 16, 10: 10, 12: 12, 14: 14, 15: 16, 16: 16}.get(highest.bit_length())
    if not bits:
        with pytest.raises(
            errors.InputError, match=f"none above {highest:,}: give the camera's bits, such as --bits 1"
        ):
            pictures.upright(encoded)
        bits = 14
    np.testing.assert_array_equal(pixels.decode(pictures.upright(encoded, bits))[..., 1], samples >> (bits - 8))


@pytest.mark.parametrize("bits", range(8, 17))
def test_stated_bits_decide(bits):
    dark = grey() // 5
    samples = deep(dark, bits) if bits > 8 else dark.astype(np.uint16)
    for encoded in (saved(Image.fromarray(samples), "TIFF"), tiff(2**bits - 1 - samples, photometric=0)):
        np.testing.assert_array_equal(pixels.decode(pictures.upright(encoded, bits)), as_rgb(dark))
    if bits > 11:
        with pytest.raises(errors.InputError, match=r"does not fit into 8 bits; give --bits \d+ or more"):
            pictures.upright(saved(Image.fromarray(samples), "TIFF"), 8)


def test_stated_bits_change_nothing_else():
    picture = grey()
    for encoded in (saved(Image.fromarray(picture), kind) for kind in ("PNG", "TIFF", "BMP", "JPEG")):
        assert pictures.upright(encoded, 12) == pictures.upright(encoded)
    dark = deep_png(deep(colour() // 5, 16))
    with pytest.raises(errors.InputError, match="save it with 8 bits per colour"):
        pictures.upright(dark)
    np.testing.assert_array_equal(pixels.decode(pictures.upright(dark, 16)), colour() // 5)


@pytest.mark.parametrize("encode", [deep_png, lambda samples: tiff(samples, photometric=2)], ids=["png", "tiff"])
def test_deep_colour_keeps_its_upper_byte_or_is_refused(encode):
    picture = colour()
    np.testing.assert_array_equal(seen(encode(deep(picture, 16))), picture)
    for bits in (10, 12, 14):
        with pytest.raises(errors.InputError, match="save it with 8 bits per colour"):
            pictures.upright(encode(deep(picture, bits)))


def test_true_sixteen_bit_png_is_unchanged():
    for encoded in (saved(Image.fromarray(deep(grey(), 16)), "PNG"), deep_png(deep(colour(), 16))):
        assert pictures.upright(encoded) == encoded


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_adobe_deflate"}, {"compression": "tiff_lzw"}])
def test_where_zero_is_white_the_picture_is_no_negative(options):
    picture = grey()
    np.testing.assert_array_equal(seen(tiff(65535 - deep(picture, 16), photometric=0)), as_rgb(picture))
    # Pillow inverts what it writes with 8 bits.
    for values in (picture, 65535 - deep(picture, 16)):
        encoded = saved(Image.fromarray(values), "TIFF", tiffinfo={262: 0}, **options)
        with Image.open(io.BytesIO(encoded)) as image:
            if image.tag_v2[262] == 0:
                np.testing.assert_array_equal(seen(encoded), as_rgb(picture))
    with pytest.raises(
        errors.InputError, match=r"inverted samples, none above 4,0\d\d: give the camera's bits, such as --bits 12"
    ):
        pictures.upright(tiff(4095 - deep(picture, 12), photometric=0))


@hypothesis.given(
    orientation=st.integers(1, 8),
    kind=st.sampled_from(["JPEG", "PNG", "TIFF", "TIFF deep", "PNG deep"]),
    height=st.integers(1, 40),
    width=st.integers(2, 40),
)
@hypothesis.settings(deadline=None)
def test_orientation_is_applied_once_in_every_format(orientation, kind, height, width):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture = grey(height, width) if "deep" in kind else colour(height=height, width=width)
    stored = pixels.turned(as_rgb(picture), BACK[orientation])
    if "deep" in kind:
        stored = deep(stored[..., 0], 12)
    encoded = saved(Image.fromarray(np.ascontiguousarray(stored)), kind.split()[0], exif=exif)
    if kind == "JPEG":
        plain = saved(Image.fromarray(np.ascontiguousarray(stored)), "JPEG")
        np.testing.assert_array_equal(pixels.turned(pixels.decode(plain), orientation), seen(encoded))
    else:
        np.testing.assert_array_equal(seen(encoded), as_rgb(picture))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_unknown_orientation_and_damaged_exif_change_nothing(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    for kind in ("JPEG", "PNG"):
        encoded = saved(Image.fromarray(colour()), kind, exif=exif)
        assert pictures.upright(encoded) == encoded
    encoded = saved(Image.fromarray(colour()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert pictures.upright(encoded) == encoded


PAGE = Image.fromarray(colour(height=60, width=80))
THUMBNAIL = PAGE.resize((20, 15))


@pytest.mark.parametrize(
    "pages", [[THUMBNAIL, PAGE], [PAGE, THUMBNAIL], [THUMBNAIL, PAGE, THUMBNAIL.resize((8, 6))]], ids=[0, 1, 2]
)
def test_the_largest_page_of_a_tiff_is_the_picture(pages):
    first, *others = pages
    encoded = saved(first, "TIFF", save_all=True, append_images=others)
    np.testing.assert_array_equal(seen(encoded), np.asarray(PAGE))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_page_behind_a_thumbnail_is_upright(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(pixels.turned(np.asarray(PAGE), BACK[orientation])))
    stored.encoderinfo = {"exif": exif}
    encoded = saved(THUMBNAIL, "TIFF", save_all=True, append_images=[stored])
    np.testing.assert_array_equal(seen(encoded), np.asarray(PAGE))


def test_pages_of_one_size_are_refused():
    encoded = saved(PAGE, "TIFF", save_all=True, append_images=[PAGE, PAGE, THUMBNAIL])
    with pytest.raises(errors.InputError, match=r"3 pages of about one size.*save the image to score as a file"):
        pictures.upright(encoded)


def test_pages_that_are_marked_as_reduced_do_not_count():
    marked = PAGE.copy()
    marked.encoderinfo = {"tiffinfo": {254: 1}}
    encoded = saved(PAGE, "TIFF", save_all=True, append_images=[marked])
    np.testing.assert_array_equal(seen(encoded), np.asarray(PAGE))
    encoded = saved(THUMBNAIL, "TIFF", tiffinfo={254: 1})
    np.testing.assert_array_equal(seen(encoded), np.asarray(THUMBNAIL))


def chunk(kind, body, checksum=None):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum or zlib.crc32(kind + body))


@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "after the pixels"])
@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"Metadata\0\0" + zlib.compress(b"<x>" * 700_000)),
        chunk(b"tEXt", b"Comment\0x", checksum=1),
        chunk(b"eXIf", b"MM\0*", checksum=1),
        chunk(b"iTXt", b"\xff" * 50),
    ],
    ids=["long text", "text with a wrong checksum", "EXIF with a wrong checksum", "damaged text"],
)
def test_chunks_that_no_pixel_needs_do_not_matter(extra, place):
    picture = colour()
    encoded = saved(Image.fromarray(picture), "PNG")
    odd = encoded[:place] + extra + encoded[place:]
    assert pictures.upright(odd) == odd
    np.testing.assert_array_equal(seen(odd), picture)


@hypothesis.given(st.binary(max_size=80), st.integers(8, 200))
@hypothesis.settings(deadline=None)
def test_damaged_png_is_an_input_error_or_a_picture(noise, place):
    encoded = saved(Image.fromarray(colour()), "PNG")
    try:
        shown = seen(encoded[:place] + noise + encoded[place + len(noise) :])
    except errors.InputError:
        return
    assert shown.shape[2] == 3


def test_a_picture_that_does_not_decode_is_none():
    assert pixels.picture(b"no picture", 20) is None
    assert pixels.picture(saved(PAGE, "JPEG")[:300], 20) is None
    assert pixels.picture(saved(PAGE.convert("CMYK"), "JPEG"), 20).size == (20, 15)


@hypothesis.given(
    cut=st.integers(1, 60), quality=st.integers(30, 95), progressive=st.booleans(), mode=st.sampled_from("LR")
)
@hypothesis.settings(deadline=None)
def test_a_cut_jpeg_is_whole_or_refused(cut, quality, progressive, mode):
    image = Image.fromarray(colour()).convert("RGB" if mode == "R" else "L")
    whole = saved(image, "JPEG", quality=quality, progressive=progressive)
    try:
        shown = pixels.decode(pictures.upright(whole[:-cut]))
    except errors.InputError:
        assert cut > 2 or progressive
        return
    np.testing.assert_array_equal(shown, pixels.decode(whole))
    assert pictures.upright(whole) == whole


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_cut_tiff_is_called_damaged(compression):
    whole = saved(Image.fromarray(colour()), "TIFF", compression=compression)
    with pytest.raises(errors.InputError, match=r"does not decode|damaged"):
        pictures.upright(whole[:-200])
