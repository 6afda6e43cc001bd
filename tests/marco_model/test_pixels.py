import io
import os
import struct
import sys
import tracemalloc

import joblib
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from marco_model import pixels, preprocessing
from marco_model.errors import InputError


def drop(height=300, width=411, channels=3):
    small = np.random.default_rng(height).integers(0, 256, (8, 9, channels), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png16(channels):
    samples = np.random.default_rng(channels).integers(0, 2**16, (120, 150, channels))
    return tf.io.encode_png(samples.astype(np.uint16)).numpy()


ENCODED = {
    **{f"subsampling {mode}": encode(drop(), "JPEG", quality=85, subsampling=mode) for mode in (0, 1, 2)},
    "progressive": encode(drop(), "JPEG", progressive=True),
    "grey JPEG": encode(drop().convert("L"), "JPEG"),
    "CMYK": encode(drop().convert("CMYK"), "JPEG"),
    "upright": encode(drop(411, 300), "JPEG"),
    "smaller than the network's input": encode(drop(5, 7), "PNG"),
    "one pixel": encode(drop(1, 1), "PNG"),
    "bytes after the end": encode(drop(), "JPEG") + b"xx",
    **{f"PNG {mode}": encode(drop().convert(mode), "PNG") for mode in ("L", "P", "RGB", "RGBA", "1")},
    "PNG LA": encode(drop().convert("L").convert("LA"), "PNG"),
    "transparent palette": encode(drop().convert("P"), "PNG", transparency=3),
    **{f"16 bits, {channels} channels": png16(channels) for channels in (1, 2, 3, 4)},
}


@pytest.mark.parametrize("name", ENCODED)
def test_the_networks_input_is_tensorflows(name):
    encoded = ENCODED[name]
    np.testing.assert_array_equal(pixels.decode(encoded), preprocessing.decode(tf.constant(encoded)).numpy())
    for size in (64, 299, 599):
        expected = preprocessing.evaluation_image(tf.constant(encoded), size).numpy()
        result = pixels.evaluation_image(encoded, size)
        assert (result.shape, result.dtype) == ((3, size, size), np.float32)
        np.testing.assert_allclose(result.transpose(1, 2, 0), expected, rtol=0, atol=1e-5)


def test_real_photographs_have_tensorflows_pixels(encoded):
    for image in encoded:
        expected = preprocessing.evaluation_image(tf.constant(image), 599).numpy()
        np.testing.assert_allclose(pixels.evaluation_image(image, 599).transpose(1, 2, 0), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shorter_side", [60, 120, 299, 300, 500])
def test_a_shrunk_image_is_tensorflows_but_for_ties_in_rounding(shorter_side):
    for encoded in (ENCODED["subsampling 2"], ENCODED["PNG RGBA"], ENCODED["upright"]):
        expected = preprocessing.shrink(tf.constant(encoded), shorter_side).numpy()
        result = pixels.shrink(encoded, shorter_side)
        images = [pixels.decode(image).astype(int) for image in (result, expected)]
        assert images[0].shape == images[1].shape
        difference = np.abs(images[0] - images[1])
        assert difference.max() <= 8
        assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"not an image",
        ENCODED["progressive"][:4000],
        ENCODED["subsampling 2"][:-2],
        ENCODED["subsampling 2"][:1500] + b"\xff\x55" + ENCODED["subsampling 2"][1502:],
        ENCODED["PNG RGB"][:2000],
        b"\xff\xd8\xff" + b"x" * 100,
    ],
    ids=["nothing", "text", "half", "no end", "damaged", "half a PNG", "no header"],
)
def test_what_does_not_decode_is_an_input_error_in_one_line(encoded):
    with pytest.raises(InputError, match=r"^does not decode: [^\n]+$"):
        pixels.decode(encoded)


def test_stray_bytes_in_a_jpeg_are_no_damage():
    encoded = ENCODED["subsampling 0"]
    stray = encoded[:-2] + b"\x00\x00" + encoded[-2:]
    np.testing.assert_array_equal(pixels.decode(stray), preprocessing.decode(tf.constant(stray)).numpy())


WHOLE = ENCODED["subsampling 0"]
_LOST = WHOLE[: len(WHOLE) // 2] + WHOLE[-2:]
DAMAGED = {
    "lost data": _LOST,
    "a header for a larger image": WHOLE.replace(struct.pack(">HH", 300, 411), struct.pack(">HH", 3000, 4110), 1),
    "lost data behind an unknown version of JFIF": _LOST.replace(b"JFIF\0\x01", b"JFIF\0\x09", 1),
    "lost data behind an unknown colour transform": _LOST[:2]
    + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x09"
    + _LOST[2:],
    "lost scans": ENCODED["progressive"][: ENCODED["progressive"].rindex(b"\xff\xda") + 40] + b"\xff\xd9",
    "lost ink": ENCODED["CMYK"][: len(ENCODED["CMYK"]) // 2] + b"\xff\xd9",
}
"""JPEGs with an end that libjpeg decodes with a warning, which it gives only for the first flaw."""


@pytest.mark.parametrize("name", DAMAGED)
def test_what_the_decoder_would_fill_with_grey_is_damaged(name):
    encoded = DAMAGED[name]
    assert preprocessing.decode(tf.constant(encoded)).shape[2] == 3
    for judge in (pixels.decode, pixels.check, lambda image: pixels.reduced(image, 20)):
        with pytest.raises(InputError, match="does not decode"):
            judge(encoded)
    assert pixels.picture(encoded, 20) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"JFIF\0\x01", b"JFIF\0\x09"), (b"\xff\xd9", b"\x55\x66\xff\xd9"), (b"\xff\xd9", b"\xff\xd9\xff\xd8\xff")],
    ids=["version of JFIF", "stray bytes", "bytes behind the end"],
)
def test_an_oddity_of_a_whole_jpeg_is_no_damage(old, new):
    odd = WHOLE.replace(old, new)
    pixels.check(odd)
    np.testing.assert_array_equal(pixels.decode(odd), preprocessing.decode(tf.constant(odd)).numpy())


def test_every_photograph_is_whole(real_images):
    for path in real_images.values():
        pixels.check(path.read_bytes())
        assert pixels.reduced(path.read_bytes(), 100).shape == (120, 160, 3)


def test_cores_are_those_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert pixels.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert pixels.cores() == joblib.cpu_count()


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, sys.maxsize),
        ({"cpu/cpu.cfs_quota_us": "800000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, sys.maxsize),
        ({"cpu.max": ""}, sys.maxsize),
        ({}, sys.maxsize),
    ],
)
def test_a_container_uses_its_share_of_the_processors(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert pixels.container_cores(tmp_path) == cores


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_flags(kind, mode):
    if (kind, mode) == ("PNG", "CMYK"):
        return
    noise = np.random.default_rng(0).normal(0, 4, (240, 320))
    drop = np.hypot(*np.meshgrid(np.linspace(-1, 1, 320), np.linspace(-1, 1, 240))) < 0.5

    def flag(light, contrast, height=240, width=320):
        values = np.clip(light + contrast * drop + noise, 0, 255).astype(np.uint8)
        image = Image.fromarray(values).resize((width, height))
        return pixels.flag(encode(image.convert(mode), kind))

    assert [flag(130, contrast) for contrast in (60, -20, 20)] == [""] * 3
    assert [flag(light, 0) for light in (30, 130, 255)] == ["blank"] * 3
    assert flag(3, 0) == "black"
    assert [flag(130, 60, 199), flag(130, 60, 240, 12), flag(130, 60, 1, 1)] == ["too small"] * 3
    assert flag(130, 60, 200, 200) == ""


def test_the_real_drops_have_no_flag(real_images):
    assert {pixels.flag(path.read_bytes()) for path in real_images.values()} == {""}


def test_what_does_not_decode_has_no_flag():
    assert pixels.flag(b"\xff\xd8\xff") == pixels.flag(b"\x89PNG") == pixels.flag(b"") == ""


def test_a_large_picture_is_shrunk_in_little_memory():
    picture = np.zeros((4000, 5000, 3), np.uint8)
    tracemalloc.start()
    try:
        assert pixels._mean_over_areas(picture, 0, 720).shape == (720, 5000, 3)
        assert tracemalloc.get_traced_memory()[1] < 250e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_an_image_is_converted_strip_by_strip_as_at_once(mode, monkeypatch):
    monkeypatch.setattr(pixels, "_STRIP", 1000)
    colours = np.random.default_rng(0).integers(0, 256, (31, 207, 3), dtype=np.uint8)
    image = Image.fromarray(colours).convert(mode)
    np.testing.assert_array_equal(pixels.rgb_array(image), np.asarray(image.convert("RGB")))


def test_a_png_whose_bytes_changed_is_decoded_as_tensorflow_does_or_refused():
    """Pillow takes lengths that go past the end, wrong check sums and a damaged end, for which training would stop."""
    encoded = ENCODED["one pixel"]
    changed = [
        encoded[:place] + bytes([byte]) + encoded[place + 1 :]
        for place in range(4, len(encoded))
        for byte in {0, 1, 77, 255, encoded[place] ^ 1} - {encoded[place]}
    ]
    for png in changed:
        try:
            image = pixels.decode(png)
        except InputError:
            continue
        np.testing.assert_array_equal(image, preprocessing.decode(tf.constant(png)).numpy())
