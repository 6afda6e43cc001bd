"""Own images as a set of MARCO shards."""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from marco_data import contract
from marco_data.contract import decoded_shape
from marco_data.image_files import drop_place, encoded_image
from marco_data.label_table import LabelledImage, LabelTable
from marco_data.name_tables import HEADER, write_sources
from marco_data.name_tables import RAW_LABELS_FILE as RAW_LABELS_FILE
from marco_data.progress import progress
from marco_data.shards import EVAL, TRAIN, hashed_draw
from marco_data.tfrecord import frame
from marco_model.errors import InputError

ERRORS_FILE = "import.errors.csv"
_SHARD_STEMS = {TRAIN: "train", EVAL: "test"}
_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did: images by split, files left out with the reason, whether plates were kept together."""

    written: Mapping[str, int]
    errors: Sequence[tuple[str, str]]
    plates_kept: bool


def import_images(table: LabelTable, output: Path, *, eval_share: float = 0.2, shard_images: int = 1024) -> Imported:
    """Writes the images of a table as `train-…` and `test-…` shards with `sources.csv` and `labels-*.csv` in `output`.

    About `eval_share` of the images are held out for evaluation, whole plates where the file names tell them and single
    images where too few plates would do. Files that cannot be read are listed in `import.errors.csv`. `output` must be
    new or empty; it appears when all is written.

    Raises `InputError` where no image can be read or `output` holds something.
    """
    if not 0 < eval_share < 1:
        raise InputError(f"eval_share is {eval_share}; expected a share between 0 and 1")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{str(output)!r} is not empty; give a new folder")
    aside = output.with_name(f".{output.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    splits, plates_kept = _draw(table.images, eval_share)
    errors: list[tuple[str, str]] = []
    with contextlib.ExitStack() as stack:
        writers = {split: _ShardWriter(aside, stem, shard_images) for split, stem in _SHARD_STEMS.items()}
        for writer in writers.values():
            stack.callback(writer.close)
        advance = stack.enter_context(progress("importing", len(table.images)))
        for image, read in _read(table.images, table.classes):
            if isinstance(read, str):
                errors.append((str(image.path), read))
            else:
                writers[splits[image.image_id]].write(read)
            advance(1)
    written = {split: writer.finish() for split, writer in writers.items()}
    if not any(written.values()):
        shutil.rmtree(aside)
        path, reason = errors[0]
        raise InputError(f"none of {len(errors)} images could be read; the first, {path!r}: {reason}")
    _write_tables(aside, table, errors)
    if output.exists():
        output.rmdir()
    aside.rename(output)
    return Imported(written, errors, plates_kept)


def _draw(images: Sequence[LabelledImage], eval_share: float) -> tuple[dict[int, str], bool]:
    """Returns the split by image id, and whether plates stayed together.

    Plates, and images of no known plate, are held out in the order of a hash, each if that brings the share closer to
    what was asked. Where no plate does, or nothing would be left to train on, single images are held out.
    """
    plates = collections.defaultdict(list)
    for image in images:
        plates[drop_place(image.path.name).plate or str(image.image_id)].append(image.image_id)
    target = min(max(eval_share * len(images), 1), len(images) - 1)
    for groups in (list(plates.values()), [[image.image_id] for image in images]):
        held_out = _held_out(groups, target)
        if 0 < len(held_out) < len(images):
            break
    splits = {image.image_id: EVAL if image.image_id in held_out else TRAIN for image in images}
    return splits, all(len({splits[one] for one in plate}) == 1 for plate in plates.values())


def _held_out(groups: Sequence[Sequence[int]], target: float) -> set[int]:
    held_out: set[int] = set()
    for group in sorted(groups, key=lambda ids: hashed_draw(f"group {min(ids)}")):
        if abs(len(held_out) + len(group) - target) < abs(len(held_out) - target):
            held_out.update(group)
    return held_out


def _read(images: Sequence[LabelledImage], classes: Mapping[int, str]) -> Iterator[tuple[LabelledImage, bytes | str]]:
    """Yields each image's serialized example, or why there is none; decodes on all cores, a few images at once."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for first in range(0, len(images), _AT_ONCE):
            batch = images[first : first + _AT_ONCE]
            made = pool.map(lambda image: _example(image, classes[image.label]), batch)
            yield from zip(batch, made, strict=True)


def _example(image: LabelledImage, class_name: str) -> bytes | str:
    try:
        encoded = encoded_image(image.path)
        height, width, _ = decoded_shape(encoded)
    except InputError as error:
        return str(error)
    example = contract.build_example(
        encoded=encoded,
        image_format="PNG" if encoded.startswith(b"\x89PNG") else "JPEG",
        height=height,
        width=width,
        filename=image.path.name,
        image_id=image.image_id,
        label=image.label,
        label_text=class_name,
        label_raw=image.label_raw,
        source=image.source,
    )
    return bytes(example.SerializeToString(deterministic=True))


class _ShardWriter:
    """Shards of a split; their names need their number, and get it when all are written."""

    def __init__(self, folder: Path, stem: str, shard_images: int) -> None:
        self._folder = folder
        self._stem = stem
        self._shard_images = shard_images
        self._images = 0
        self._shards: list[Path] = []
        self._file: BinaryIO | None = None

    def write(self, record: bytes) -> None:
        """Appends a record."""
        if self._images % self._shard_images == 0:
            self.close()
            self._shards.append(self._folder / f"{self._stem}.{len(self._shards)}.part")
            self._file = self._shards[-1].open("wb")
        assert self._file is not None
        self._file.write(frame(record))
        self._images += 1

    def close(self) -> None:
        """Closes the file that is open."""
        if self._file is not None:
            self._file.close()

    def finish(self) -> int:
        """Gives the shards their names; returns the number of images."""
        self.close()
        for number, shard in enumerate(self._shards, 1):
            shard.rename(self._folder / f"{self._stem}-{number:05d}-of-{len(self._shards):05d}")
        return self._images


def _write_tables(folder: Path, table: LabelTable, errors: Sequence[tuple[str, str]]) -> None:
    write_sources(folder, table.sources)
    tables = {"labels-norm.csv": table.classes, RAW_LABELS_FILE: table.raw_labels}
    for name, names in tables.items():
        _write_rows(folder / name, HEADER, sorted(names.items()))
    if errors:
        _write_rows(folder / ERRORS_FILE, ("path", "reason"), errors)


def _write_rows(path: Path, header: Sequence[str], rows: Sequence[tuple[object, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
