"""A sheet of example images, a row a class."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from marco_data.inspection import Sample
from marco_model.labels import CLASSES

CELL = 240
_CAPTION = 34
_GAP = 8
_INK, _PAPER, _GREY = (20, 20, 20), (255, 255, 255), (200, 200, 200)


def contact_sheet(samples: Mapping[str, Sequence[Sample]]) -> Image.Image:
    """Draws the samples, in a row a class, each with its class, institution and file name; RGB.

    An image that does not decode is an empty cell that says so.
    """
    names = sorted(samples, key=lambda name: (CLASSES.index(name) if name in CLASSES else len(CLASSES), name))
    columns = max((len(samples[name]) for name in names), default=1)
    height, width = CELL + _CAPTION + _GAP, CELL + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, max(len(names), 1) * height + _GAP), _PAPER)
    for row, name in enumerate(names):
        for column, sample in enumerate(samples[name]):
            _draw_cell(sheet, sample, column * width + _GAP, row * height + _GAP)
    return sheet


def write_contact_sheet(path: Path, samples: Mapping[str, Sequence[Sample]]) -> None:
    """Writes the sheet as PNG, aside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    contact_sheet(samples).save(aside, "PNG")
    aside.rename(path)


def _draw_cell(sheet: Image.Image, sample: Sample, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    try:
        image = Image.open(io.BytesIO(sample.encoded), formats=("JPEG", "PNG")).convert("RGB")
        image.thumbnail((CELL, CELL))
        sheet.paste(image, (left + (CELL - image.width) // 2, top + CELL - image.height))
    except Exception:  # Pillow's decoders raise what they stumble over
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=_GREY)
        draw.text((left + 8, top + CELL // 2), "does not decode", _INK, font)
    for line, text in enumerate((f"{sample.class_name} · {sample.institution}", sample.filename)):
        draw.text((left, top + CELL + 2 + 16 * line), _shortened(text, font), _INK, font)


def _shortened(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= CELL:
        return text
    while text and font.getlength(text + "…") > CELL:
        text = text[:-1]
    return text + "…"
