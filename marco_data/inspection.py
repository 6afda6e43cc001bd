"""What is in a set of shards: counts, and a few images of each class."""

from __future__ import annotations

import collections
import csv
import dataclasses
import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from marco_data import contract
from marco_data.name_tables import UNKNOWN, find_raw_labels, find_sources, imager_of
from marco_data.progress import progress
from marco_data.shards import File, find_shards, hashed_draw, split_of
from marco_data.tfrecord import Record, read_records
from marco_model.errors import InputError
from marco_model.labels import CLASSES
from marco_model.store import open_raw

QUARANTINE_FILE = "quarantine.csv"

Counts = collections.Counter[tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image for the contact sheet."""

    encoded: bytes
    class_name: str
    institution: str
    filename: str


@dataclasses.dataclass
class Inspection:
    """Counts over a set; each by split (`train`, `eval` or `unknown`) and a name, `samples` by class.

    A raw label goes by number, name (empty where the set has no labels-raw.csv) and class.
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


def inspect_shards(paths: Sequence[str], samples: int = 0) -> Inspection:
    """Reads every record of raw shards or of ExampleGen's output, and decodes none.

    `samples` images of each class are kept, drawn by a stable hash of their ids. Records that cannot be read are
    counted; `marco data ingest` says what is wrong with them. Raises `InputError` where there are no shards.
    """
    shards = find_shards(paths)
    sources = find_sources(paths, (shard.path for shard in shards))
    raw_names = find_raw_labels(paths, (shard.path for shard in shards)) or {}
    found = Inspection(shards=len(shards))
    drawn: dict[str, list[tuple[float, int, Sample]]] = {}
    with progress("reading", len(shards), unit="shards") as advance:
        for shard in shards:
            split = _split(shard)
            for features in _features(shard.path):
                if features is None:
                    found.unreadable += 1
                    continue
                _count(found, split, features, sources)
                _count_raw_label(found, split, features, raw_names)
                if samples:
                    _draw(drawn, features, sources, samples)
            advance(1)
    found.samples = {name: [sample for *_, sample in sorted(held, reverse=True)] for name, held in drawn.items()}
    return found


def read_quarantine(path: str) -> dict[str, list[dict[str, str]]] | None:
    """Returns a quarantine's entries by reason, most frequent first, or None where `path` holds none.

    `path` is the output of `marco data ingest` or the quarantine itself.
    """
    for place in (Path(path) / "quarantine" / QUARANTINE_FILE, Path(path) / QUARANTINE_FILE):
        if place.is_file():
            by_reason: dict[str, list[dict[str, str]]] = {}
            with place.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    by_reason.setdefault(row["reason"], []).append(row)
            return dict(sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])))
    return None


def _split(shard: File) -> str:
    try:
        return split_of(shard.path)
    except InputError:
        return UNKNOWN


def _features(path: str) -> Iterator[dict[str, Any] | None]:
    """Yields each record's features, each its first value, or None for a record or rest that cannot be read."""
    with open_raw(path) as file:
        for found in read_records(file):
            if not isinstance(found, Record) or not found.intact:
                yield None
                continue
            try:
                feature = contract.parse_example(found.data).features.feature
            except InputError:
                yield None
                continue
            values = {name: _first(feature[name]) for name in feature}
            yield values if {contract.LABEL, contract.ENCODED} <= values.keys() else None


def _first(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    held = getattr(feature, kind).value if kind else ()
    return held[0] if held else None


def _text(features: Mapping[str, Any], name: str) -> str:
    value = features.get(name, b"")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _count(found: Inspection, split: str, features: Mapping[str, Any], sources: Mapping[int, str] | None) -> None:
    institution = _institution(features, sources)
    imager = _text(features, contract.IMAGER) or imager_of(institution, _text(features, contract.FILENAME))
    found.classes[split, _class_name(features)] += 1
    found.imagers[split, institution, imager] += 1
    found.sizes[split, f"{features.get(contract.WIDTH)}×{features.get(contract.HEIGHT)}"] += 1


def _count_raw_label(found: Inspection, split: str, features: Mapping[str, Any], raw_names: Mapping[int, str]) -> None:
    number = features.get(contract.LABEL_RAW)
    if isinstance(number, int):
        found.raw_labels[split, str(number), raw_names.get(number, ""), _class_name(features)] += 1


def _institution(features: Mapping[str, Any], sources: Mapping[int, str] | None) -> str:
    number = int(features.get(contract.SOURCE) or 0)
    return _text(features, contract.INSTITUTION) or (sources or {}).get(number, f"source {number}")


def _class_name(features: Mapping[str, Any]) -> str:
    return _text(features, contract.LABEL_TEXT) or f"label {features[contract.LABEL]}"


def _draw(
    drawn: dict[str, list[tuple[float, int, Sample]]],
    features: Mapping[str, Any],
    sources: Mapping[int, str] | None,
    samples: int,
) -> None:
    """Keeps the image if its draw is among the lowest of its class; a heap holds the highest of those on top."""
    held = drawn.setdefault(_class_name(features), [])
    number = features.get(contract.IMAGE_ID)
    rank = -hashed_draw(f"sample {number}")
    if len(held) == samples and rank <= held[0][0]:
        return
    sample = Sample(
        features[contract.ENCODED],
        _class_name(features),
        _institution(features, sources),
        _text(features, contract.FILENAME),
    )
    entry = (rank, sum(map(len, drawn.values())) if number is None else number, sample)
    if len(held) < samples:
        heapq.heappush(held, entry)
    else:
        heapq.heapreplace(held, entry)


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
