"""Report, contact sheet and plate page show the pixels that the network gets."""

import io

import numpy as np
import pytest
from PIL import Image

from components.report import plots
from marco_data import inspection
from marco_model import pixels
from marco_scoring import plate_report


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def on_sheet(encoded):
    cell = inspection.CELL
    sheet = inspection.contact_sheet({"Clear": [inspection.Sample(encoded, "Clear", "lab", "a.png")]})
    return sheet.crop((8, 8, 8 + cell, 8 + cell))


def in_report(encoded):
    return Image.open(io.BytesIO(plots.thumbnail(encoded, inspection.CELL)))


def on_page(encoded):
    return Image.open(io.BytesIO(plate_report.thumbnail(encoded, inspection.CELL).jpeg))


SMOOTH = np.add.outer(np.arange(inspection.CELL), np.arange(inspection.CELL)) * 120 + 4000


@pytest.mark.parametrize("shown", [on_sheet, in_report, on_page])
@pytest.mark.parametrize(
    "encoded",
    [
        encode(Image.fromarray(SMOOTH.astype(np.uint16)), "PNG"),
        encode(Image.fromarray((SMOOTH // 16).astype(np.uint16)), "PNG"),
        encode(Image.fromarray((SMOOTH >> 8).astype(np.uint8)).convert("CMYK"), "JPEG", quality=95),
        encode(Image.fromarray((SMOOTH >> 8).astype(np.uint8)).convert("P"), "PNG"),
    ],
    ids=["16 bits", "12 bits", "CMYK", "palette"],
)
def test_pictures_are_what_the_network_gets(shown, encoded):
    difference = np.asarray(shown(encoded).convert("RGB")).astype(int) - pixels.decode(encoded)
    assert np.abs(difference).max() <= 6


def test_what_does_not_decode_has_no_picture():
    assert plots.thumbnail(b"\x89PNG") is None
    assert plate_report.thumbnail(b"\x89PNG", 20) is None
    assert on_sheet(b"\x89PNG").getpixel((0, 0)) != (0, 0, 0)
