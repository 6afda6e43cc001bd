"""Your own images as a set of MARCO shards (`marco data import`).

`import_images` reads the images of a label table (`marco_data.label_table`), draws training and evaluation split, and
writes shards and the tables beside them.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from marco_data import contract, image_files, name_tables, tfrecord
from marco_data.label_table import LabelledImage, LabelTable
from marco_data.progress import progress
from marco_data.shards import EVAL, TRAIN, hashed_draw
from marco_model import errors, store

ERRORS_FILE = "import.errors.csv"
_SHARD_STEMS = {TRAIN: "train", EVAL: "test"}
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Imported:
    """The result of an import: images by split, skipped files with the reason, whether plates were kept together."""

    written: Mapping[str, int]
    errors: Sequence[tuple[str, str]]
    plates_kept: bool


def import_images(table: LabelTable, output: Path, *, eval_share: float = 0.2, shard_images: int = 1024) -> Imported:
    """Writes the images of a table as `train-…` and `test-…` shards with `sources.csv` and `labels-*.csv` in `output`.

    About `eval_share` of the images are held out for evaluation: whole plates if the file names state them, single
    images if there are too few plates. Files that cannot be read are listed in `import.errors.csv`. `output` must be
    new or empty; it appears when everything is written. A shard has at most `shard_images` images.

    Raises `InputError` if no image can be read, `output` is not empty or `eval_share` is not between 0 and 1.
    """
    if not 0 < eval_share < 1:
        raise errors.InputError(f"eval_share is {eval_share}; expected a share between 0 and 1")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise errors.InputError(f"{str(output)!r} is not empty; give a new folder")
    splits, plates_kept = _draw_splits(table.images, eval_share)
    skipped: list[tuple[str, str]] = []
    with store.whole_directory(output) as folder:
        with contextlib.ExitStack() as stack:
            writers = {split: _ShardWriter(folder, stem, shard_images) for split, stem in _SHARD_STEMS.items()}
            for writer in writers.values():
                stack.callback(writer.close)
            advance = stack.enter_context(progress("importing", len(table.images)))
            for image, record in _read(table.images, table.classes):
                if isinstance(record, str):
                    skipped.append((str(image.path), record))
                else:
                    writers[splits[image.image_id]].write(record)
                advance(1)
        written = {split: writer.finish() for split, writer in writers.items()}
        if not any(written.values()):
            path, reason = skipped[0]
            raise errors.InputError(f"none of {len(skipped)} images could be read; the first, {path!r}: {reason}")
        name_tables.write_tables(folder, table.sources, table.classes, table.raw_labels)
        if skipped:
            name_tables.write_csv(folder / ERRORS_FILE, ("path", "reason"), skipped)
    return Imported(written, skipped, plates_kept)


def _draw_splits(images: Sequence[LabelledImage], eval_share: float) -> tuple[dict[int, str], bool]:
    """Returns the split by image id, and whether plates stayed together.

    Plates, and images without a plate, are visited in the order of a hash; each is held out if that brings the share
    closer to `eval_share`. If that holds out nothing, or everything, single images are held out instead.
    """
    plates = collections.defaultdict(list)
    for image in images:
        plates[image_files.drop_place(image.path.name).plate or str(image.image_id)].append(image.image_id)
    target = min(max(eval_share * len(images), 1), len(images) - 1)
    for groups in (list(plates.values()), [[image.image_id] for image in images]):
        held_out: set[int] = set()
        for group in sorted(groups, key=lambda ids: hashed_draw(f"group {min(ids)}")):
            if abs(len(held_out) + len(group) - target) < abs(len(held_out) - target):
                held_out.update(group)
        if 0 < len(held_out) < len(images):
            break
    splits = {image.image_id: EVAL if image.image_id in held_out else TRAIN for image in images}
    return splits, all(len({splits[number] for number in plate}) == 1 for plate in plates.values())


def _read(images: Sequence[LabelledImage], classes: Mapping[int, str]) -> Iterator[tuple[LabelledImage, bytes | str]]:
    """Yields each image's serialized example, or the reason why it has none; decodes on all cores, batch by batch."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            records = pool.map(lambda image: _record(image, classes[image.label]), batch)
            yield from zip(batch, records, strict=True)


def _record(image: LabelledImage, class_name: str) -> bytes | str:
    try:
        encoded = image_files.encoded_image(image.path)
        height, width, _ = contract.decoded_shape(encoded)
    except errors.InputError as error:
        return str(error)
    example = contract.build_example(
        encoded=encoded,
        image_format=image_files.PNG if encoded.startswith(b"\x89PNG") else image_files.JPEG,
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
    """Writes the shards of a split; their names contain their number, so they are renamed at the end."""

    def __init__(self, folder: Path, stem: str, shard_images: int) -> None:
        self._folder = folder
        self._stem = stem
        self._shard_images = shard_images
        self._images = 0
        self._shards: list[Path] = []
        self._file: BinaryIO | None = None

    def write(self, record: bytes) -> None:
        """Appends a record."""
        if self._file is None or self._images % self._shard_images == 0:
            self.close()
            self._shards.append(self._folder / f"{self._stem}.{len(self._shards)}")
            self._file = self._shards[-1].open("wb")
        self._file.write(tfrecord.frame(record))
        self._images += 1

    def close(self) -> None:
        """Closes the current shard."""
        if self._file is not None:
            self._file.close()

    def finish(self) -> int:
        """Renames the shards to their final names; returns the number of images."""
        self.close()
        for number, shard in enumerate(self._shards, 1):
            shard.rename(self._folder / f"{self._stem}-{number:05d}-of-{len(self._shards):05d}")
        return self._images
