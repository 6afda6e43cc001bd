"""Image files read back with TensorFlow, and the header reader against Pillow's."""

import io
import os
import struct
import subprocess
import sys
import zlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from marco_data import importing, label_tables
from marco_data.image_files import encoded_image, find_images, image_header
from marco_model import pixels
from marco_model.errors import InputError


def drop(height=24, width=32):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, content, mode=None, **options):
    image = Image.fromarray(content)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def decode(path):
    return tf.io.decode_jpeg(encoded_image(path), channels=3).numpy()


def test_folders_are_searched_in_order_and_each_file_is_listed_once(tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    names = ["a.JPG", "b/d.jpeg", "b/deep/c.TIFF", "b/e.Png", "f.bmp", "g.tif"]
    for name in [*names, "notes.txt", ".hidden.jpg", "image.gif"]:
        (tmp_path / name).touch()
    expected = [tmp_path / name for name in names]
    assert find_images([tmp_path]).files == expected
    assert find_images([tmp_path / "f.bmp", tmp_path]).files == [expected[4], *expected[:4], expected[5]]
    assert find_images([tmp_path / "notes.txt"]).files == [tmp_path / "notes.txt"]
    with pytest.raises(InputError, match="nowhere"):
        find_images([tmp_path / "nowhere"])


@pytest.mark.parametrize("name", ["drop.JPEG", "drop.png"])
def test_jpeg_and_png_come_as_they_are(tmp_path, name):
    path = save(tmp_path / name, drop())
    assert encoded_image(path) == path.read_bytes()


# BMP does not hold CMYK.
@pytest.mark.parametrize(
    ("ending", "mode"),
    [(ending, mode) for ending in ("tif", "bmp") for mode in ("RGB", "L", "P", "1", "RGBA")] + [("tif", "CMYK")],
)
def test_tiff_and_bmp_keep_every_pixel(tmp_path, mode, ending):
    path = save(tmp_path / f"drop.{ending}", drop(), mode)
    with Image.open(path) as image:
        np.testing.assert_array_equal(decode(path), np.asarray(image.convert("RGB")))


def test_sixteen_bits_keep_their_upper_byte_in_tiff_and_png(tmp_path):
    deep = (np.arange(24 * 32).reshape(24, 32) * 85).astype(np.uint16)
    for name in ("deep.tif", "deep.png"):
        expected = np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=-1)
        np.testing.assert_array_equal(decode(save(tmp_path / name, deep)), expected)


def test_cmyk_jpeg_decodes_to_its_colours(tmp_path):
    smooth = np.stack(np.meshgrid(np.arange(64), np.arange(64)), -1).astype(np.uint8)
    smooth = np.concatenate([smooth * 4, np.full((64, 64, 1), 90, np.uint8)], -1)
    path = save(tmp_path / "cmyk.jpg", smooth, "CMYK", quality=98)
    assert np.abs(decode(path).astype(int) - smooth).mean() < 3


def png_header(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 9_900, 60_000])
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(InputError, match="50,000,000"):
        encoded_image(path)


def test_a_file_that_is_not_an_image_is_refused_with_the_reason(tmp_path):
    cases = {
        "empty.jpg": (b"", "empty"),
        "text.png": (b"not a picture", "not a JPEG"),
        "random.jpg": (np.random.default_rng(1).bytes(4096), "not a JPEG"),
        "half.tif": (save(tmp_path / "whole.tif", drop()).read_bytes()[:400], "header is damaged|does not decode"),
    }
    for name, (body, reason) in cases.items():
        (tmp_path / name).write_bytes(body)
        with pytest.raises(InputError, match=reason):
            encoded_image(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        encoded_image(tmp_path / "missing.jpg")
    save(tmp_path / "float.tif", drop()[..., 0].astype(np.float32))
    with pytest.raises(InputError, match="32-bit"):
        encoded_image(tmp_path / "float.tif")


def test_only_regular_files_are_read_and_no_more_of_them_than_is_accepted(tmp_path, monkeypatch):
    """A pipe and a device have no end, and a file may grow while it is read."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "link.jpg", "/dev/zero", "/dev/null"):
        with pytest.raises(InputError, match="not a regular file; a pipe or a device may have no end"):
            encoded_image(tmp_path / name)
    whole = [f"whole{number}.png" for number in range(6)]
    for number, name in enumerate(whole):
        save(tmp_path / name, drop(24 + number))
    listed = ["pipe.jpg", "/dev/zero", "/dev/null", *whole]
    (tmp_path / "labels.csv").write_text("filename,label\n" + "".join(f"{name},Clear\n" for name in listed))
    done = importing.import_images(label_tables.from_csv(tmp_path / "labels.csv"), tmp_path / "set")
    assert [path.rsplit("/", 1)[-1] for path, _ in done.errors] == ["pipe.jpg", "zero", "null"]
    monkeypatch.setattr(pixels, "MAX_BYTES", 10)
    with pytest.raises(InputError, match="bytes are more than the 10 accepted"):
        encoded_image(tmp_path / "whole0.png")


SIDES = st.integers(1, 70)


@hypothesis.given(
    height=SIDES,
    width=SIDES,
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    progressive=st.booleans(),
    comment=st.none() | st.binary(min_size=1, max_size=400),
    exif=st.booleans(),
)
@hypothesis.settings(deadline=None)
def test_jpeg_headers(height, width, mode, progressive, comment, exif):
    buffer = io.BytesIO()
    options = {"exif": Image.Exif()} if exif else {}
    if comment:
        options["comment"] = comment
    Image.new(mode, (width, height)).save(buffer, "JPEG", progressive=progressive, **options)
    assert image_header(buffer.getvalue())[:3] == ("JPEG", *Image.open(buffer).size[::-1])


@hypothesis.given(height=SIDES, width=SIDES, mode=st.sampled_from(["RGB", "RGBA", "L", "P", "I;16"]))
@hypothesis.settings(deadline=None)
def test_png_headers(height, width, mode):
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    assert image_header(buffer.getvalue())[:3] == ("PNG", height, width)


@hypothesis.given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_anything_else_is_a_value_error_or_a_size(noise, start):
    try:
        header = image_header(start + noise)
    except ValueError:
        return
    assert header.height > 0 and header.width > 0


@pytest.mark.parametrize("encoded", [b"", b"GIF89a" + bytes(40), b"\xff\xd8\xff\xda" + bytes(40), b"\xff\xd8\xff"])
def test_the_header_of_another_file_is_refused(encoded):
    with pytest.raises(ValueError):
        image_header(encoded)


def test_an_image_without_pixels_is_refused():
    start = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
    with pytest.raises(ValueError, match="0x5"):
        image_header(start + struct.pack(">II", 0, 5) + bytes(9))


def jpeg(height, width, *, scans=0, start=b""):
    """A progressive JPEG of one grey; `scans` more empty scans; `start` comes before its first segment."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), 90).save(buffer, "JPEG", progressive=True)
    encoded = buffer.getvalue()
    empty = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00"
    return encoded[:2] + start + encoded[2:-2] + empty * scans + encoded[-2:]


def start_of_frame(height, width):
    return b"\xff\xc0" + struct.pack(">HBHHB3B", 11, 8, height, width, 1, 1, 0x11, 0)


@pytest.mark.parametrize(
    "start",
    [
        b"\xff\xfe" + struct.pack(">H", 15) + start_of_frame(8, 8),
        # libjpeg skips what is no marker; a reader that takes it for a segment jumps over the true frame.
        b"\xff\x00\x02\x00",
        b"\xff\xff\xff\xfe\x00\x02",
        b"\x12\x34",
    ],
    ids=["frame in a comment", "no marker", "filling", "stray bytes"],
)
def test_the_size_is_that_which_the_decoder_finds(start):
    encoded = jpeg(40, 56, start=start)
    try:
        size = image_header(encoded)[1:3]
    except ValueError:
        return
    assert size == tuple(tf.io.extract_jpeg_shape(encoded).numpy()[:2]) == (40, 56)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=300, deadline=None)
def test_mutated_headers_are_read_as_the_decoder_reads_them_or_refused(data):
    encoded = bytearray(jpeg(40, 56, start=b"\xff\xfe" + struct.pack(">H", 15) + start_of_frame(8, 8)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(2, 200))
        encoded[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        size = image_header(bytes(encoded))[1:3]
        decoded = pixels.decode(bytes(encoded)).shape[:2]
    except (ValueError, InputError):
        return
    assert size == decoded


@pytest.mark.parametrize("judge", [image_header, pixels.decode])
def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(judge):
    assert image_header(jpeg(40, 56, scans=20))[:3] == ("JPEG", 40, 56)
    with pytest.raises(ValueError, match="scans; at most 100 are decoded"):
        judge(jpeg(40, 56, scans=2000))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_an_image_beyond_the_limit_is_refused_by_the_decoder_itself(image_format):
    if image_format == "JPEG":
        encoded = bytearray(jpeg(40, 56))
        place = encoded.index(b"\xff\xc2") + 5
        encoded[place : place + 4] = struct.pack(">HH", 13370, 13370)
    else:
        buffer = io.BytesIO()
        Image.new("1", (8000, 8000)).save(buffer, "PNG")
        encoded = buffer.getvalue()
    with pytest.raises(InputError, match="pixels are more than the 50,000,000 accepted"):
        pixels.decode(bytes(encoded))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "size", "options"),
    [
        ("L", (24, 1_572_864), {"format": "TIFF", "compression": "tiff_adobe_deflate"}),
        ("CMYK", (6000, 6000), {"format": "JPEG", "exif": {0x112: 6}}),
        ("RGB", (6000, 6000), {"format": "PNG", "exif": {0x112: 6}}),
        ("RGB", (6000, 6000), {"format": "BMP"}),
        ("I;16", (6000, 6000), {"format": "PNG"}),
    ],
)
def test_a_large_picture_takes_little_more_memory_than_its_pixels(mode, size, options):
    """Found by fuzzing: a TIFF of 38 million pixels took 14 bytes a pixel on its way, a turned CMYK JPEG 20."""
    code = f"""
import io
from PIL import Image
from marco_model import pictures
options, exif = {options!r}, Image.Exif()
for tag, value in options.pop("exif", {{}}).items():
    exif[tag] = value
content = io.BytesIO()
Image.new({mode!r}, {size!r}, {{"L": 7, "I;16": 40_000}}.get({mode!r})).save(content, exif=exif, **options)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # Linux forgets the largest resident set: proc(5).
def largest():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10
before = largest()
pictures.upright(content.getvalue())
print(largest() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10 * size[0] * size[1]
