"""The content of a set of shards: counts, a contact sheet with a few images per class, and the quarantine's reasons."""

import collections
import contextlib
import dataclasses
import heapq
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from marco_data import contract, name_tables, progress, shards
from marco_model import errors, labels, pixels, store

QUARANTINE_FILE = "quarantine.csv"
_QUARANTINE_COLUMNS = ("shard", "index", "reason", "detail")
CELL = 240
_CAPTION = 34
_GAP = 8
_MARK = ("Software", "marco data inspect")
"""Key and text of a sheet's tEXt chunk."""
_INK, _PAPER, _GREY = (20, 20, 20), (255, 255, 255), (200, 200, 200)

Counts = collections.Counter[tuple[str, ...]]


class Sample(NamedTuple):
    """An image of the contact sheet: JPEG or PNG bytes and its captions."""

    encoded: bytes
    class_name: str
    institution: str
    filename: str


@dataclasses.dataclass
class Inspection:
    """Counts over a set by split (`train`, `eval` or `unknown`) and name; `samples` by class.

    Names: the class; institution and imager; width×height; a raw label's number, name (empty if the set has no
    labels-raw.csv) and class.
    """

    classes: Counts = dataclasses.field(default_factory=collections.Counter)
    imagers: Counts = dataclasses.field(default_factory=collections.Counter)
    sizes: Counts = dataclasses.field(default_factory=collections.Counter)
    raw_labels: Counts = dataclasses.field(default_factory=collections.Counter)
    shards: int = 0
    unreadable: int = 0
    samples: dict[str, list[Sample]] = dataclasses.field(default_factory=dict)

    @property
    def records(self) -> int:
        """The number of records that could be read."""
        return self.classes.total()


def inspect_shards(
    paths: Sequence[str], samples: int = 0, rules: Sequence[name_tables.ImagerRule] = name_tables.IMAGER_RULES
) -> Inspection:
    """Reads every record of raw shards or of ExampleGen's output, and decodes none.

    `samples` images of each class are kept, drawn by a stable hash of their ids. `rules` say which imager took an image
    whose record does not. Records that cannot be read are counted; `marco data ingest` says what is wrong with them.
    Raises `InputError` if there are no shards.
    """
    files = shards.find_shards(paths)
    places = [file.path for file in files]
    sources = name_tables.find_tables(name_tables.SOURCES_FILE, paths, places)
    raw_labels = name_tables.find_tables(name_tables.RAW_LABELS_FILE, paths, places)
    inspection = Inspection(shards=len(files))
    drawn: dict[str, list[tuple[float, int, Sample]]] = {}
    with progress.progress("reading", len(files), unit="shards") as advance:
        for place in places:
            split, raw_names = shards.split_of(place, default=name_tables.UNKNOWN), raw_labels[place] or {}
            for features in _features(place):
                if features is None:
                    inspection.unreadable += 1
                    continue
                sample = _sample(features, sources[place])
                imager = _text(features, contract.IMAGER)
                imager = imager or name_tables.imager_of(sample.institution, sample.filename, rules)
                inspection.classes[split, sample.class_name] += 1
                inspection.imagers[split, sample.institution, imager] += 1
                inspection.sizes[split, f"{features.get(contract.WIDTH)}×{features.get(contract.HEIGHT)}"] += 1
                number = features.get(contract.LABEL_RAW)
                if isinstance(number, int):
                    inspection.raw_labels[split, str(number), raw_names.get(number, ""), sample.class_name] += 1
                if samples:
                    _draw_sample(drawn, features.get(contract.IMAGE_ID), sample, samples)
            advance(1)
    inspection.samples = {name: [sample for *_, sample in sorted(heap, reverse=True)] for name, heap in drawn.items()}
    return inspection


def read_quarantine(path: str) -> dict[str, list[dict[str, str]]] | None:
    """Returns by reason, most frequent first, the entries of a quarantine or an ingest's output; None without one."""
    for place in (Path(path) / "quarantine" / QUARANTINE_FILE, Path(path) / QUARANTINE_FILE):
        if place.is_file():
            by_reason: dict[str, list[dict[str, str]]] = {}
            header, rows = name_tables.read_cells(name_tables.read_csv_text(place))
            if missing := [name for name in _QUARANTINE_COLUMNS if name not in header]:
                raise errors.InputError(f"{place} has no column {missing[0]}; give what `marco data ingest` wrote")
            for _, cells in rows:
                row = {**dict.fromkeys(header, ""), **dict(zip(header, cells, strict=False))}
                by_reason.setdefault(row["reason"], []).append(row)
            return dict(sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])))
    return None


def _features(path: str) -> Iterator[dict[str, Any] | None]:
    """Yields the first value of each feature of each record; None for a record or rest that cannot be read."""
    for _, features in shards.read_examples(path):
        values = {name: next(iter(contract.feature_values(features[name])[1]), None) for name in features}
        yield values if {contract.LABEL, contract.ENCODED} <= values.keys() else None


def _text(features: Mapping[str, Any], name: str) -> str:
    value = features.get(name, b"")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _sample(features: Mapping[str, Any], sources: Mapping[int, str] | None) -> Sample:
    number = int(features.get(contract.SOURCE) or 0)
    class_name = _text(features, contract.LABEL_TEXT) or f"label {features[contract.LABEL]}"
    institution = _text(features, contract.INSTITUTION) or (sources or {}).get(number, f"source {number}")
    return Sample(features[contract.ENCODED], class_name, institution, _text(features, contract.FILENAME))


def _draw_sample(
    drawn: dict[str, list[tuple[float, int, Sample]]], number: int | None, sample: Sample, samples: int
) -> None:
    """Keeps the image if its draw is among the lowest of its class; the heap has the highest of these on top."""
    heap = drawn.setdefault(sample.class_name, [])
    rank = -shards.hashed_draw(f"sample {number}")
    entry = (rank, sum(map(len, drawn.values())) if number is None else number, sample)
    if len(heap) < samples:
        heapq.heappush(heap, entry)
    elif rank > heap[0][0]:
        heapq.heapreplace(heap, entry)


def contact_sheet(samples: Mapping[str, Sequence[Sample]]) -> Image.Image:
    """Draws the samples with captions, RGB, one row per class; an image that does not decode is a cell with a note."""
    names = [*(name for name in labels.CLASSES if name in samples), *sorted(samples.keys() - set(labels.CLASSES))]
    columns = max((len(samples[name]) for name in names), default=1)
    height, width = CELL + _CAPTION + _GAP, CELL + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, max(len(names), 1) * height + _GAP), _PAPER)
    for row, name in enumerate(names):
        for column, sample in enumerate(samples[name]):
            _draw_cell(sheet, sample, column * width + _GAP, row * height + _GAP)
    return sheet


def write_contact_sheet(path: Path, samples: Mapping[str, Sequence[Sample]]) -> None:
    """Writes the sheet as PNG, whole or not at all."""
    mark = PngImagePlugin.PngInfo()
    mark.add_text(*_MARK)
    with store.whole_file(path, "wb") as file:
        contact_sheet(samples).save(file, "PNG", pnginfo=mark)


def is_contact_sheet(path: Path) -> bool:
    """Returns whether a file is a contact sheet, which another may replace, rather than a photograph."""
    with contextlib.suppress(OSError, ValueError, SyntaxError), Image.open(path, formats=["PNG"]) as image:
        return image.info.get(_MARK[0]) == _MARK[1]
    return False


def _draw_cell(sheet: Image.Image, sample: Sample, left: int, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    if image := pixels.picture(sample.encoded, CELL):
        sheet.paste(image, (left + (CELL - image.width) // 2, top + CELL - image.height))
    else:
        draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=_GREY)
        draw.text((left + 8, top + CELL // 2), "does not decode", _INK, font)
    for line, text in enumerate((f"{sample.class_name} · {sample.institution}", sample.filename)):
        draw.text((left, top + CELL + 2 + 16 * line), _shorten(text, font), _INK, font)


def _shorten(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= CELL:
        return text
    while text and font.getlength(text + "…") > CELL:
        text = text[:-1]
    return text + "…"
