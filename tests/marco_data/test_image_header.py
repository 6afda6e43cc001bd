"""The header reader against Pillow's."""

import io
import struct

import hypothesis
import hypothesis.strategies as st
import pytest
from PIL import Image

from marco_data.image_files import image_header

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
    assert image_header(buffer.getvalue()) == ("JPEG", *Image.open(buffer).size[::-1])


@hypothesis.given(height=SIDES, width=SIDES, mode=st.sampled_from(["RGB", "RGBA", "L", "P", "I;16"]))
@hypothesis.settings(deadline=None)
def test_png_headers(height, width, mode):
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    assert image_header(buffer.getvalue()) == ("PNG", height, width)


@hypothesis.given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_anything_else_is_a_value_error_or_a_size(noise, start):
    try:
        header = image_header(start + noise)
    except ValueError:
        return
    assert header.height > 0 and header.width > 0


@pytest.mark.parametrize("encoded", [b"", b"GIF89a" + bytes(40), b"\xff\xd8\xff\xda" + bytes(40), b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(encoded):
    with pytest.raises(ValueError):
        image_header(encoded)


def test_an_image_without_pixels_is_refused():
    start = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
    with pytest.raises(ValueError, match="0x5"):
        image_header(start + struct.pack(">II", 0, 5) + bytes(9))
