"""Your own images as a set of MARCO shards (`marco data import`)."""

import collections
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from marco_data import contract, image_files, label_tables, name_tables, progress, shards, tfrecord
from marco_model import errors, pictures, pixels, store

ERRORS_FILE = "import.errors.csv"
_SHARD_STEMS = {shards.TRAIN: "train", shards.VALIDATION: "validation", shards.EVAL: "test"}
_BATCH = 32
_MAX_IMAGE_BYTES = tfrecord.MAX_RECORD_BYTES - (1 << 20)
SCARCE = {
    shards.TRAIN: ("learn a class from", 20),
    shards.VALIDATION: ("choose the weights by", 5),
    shards.EVAL: ("judge a class from", 20),
}
"""Images of a class below which an import warns, and what they are for. The gate judges no slice of fewer than 20."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """The result of an import: images by split, skipped files with the reason, and what to know of the splits."""

    written: Mapping[str, int]
    errors: Sequence[tuple[str, str]]
    warnings: Sequence[str] = ()


def import_images(
    table: label_tables.LabelTable,
    output: Path,
    *,
    eval_share: float = 0.2,
    validation_share: float = 0.15,
    shard_images: int = 1024,
    bits: int | None = None,
) -> Imported:
    """Writes the images of a table as `train-…`, `validation-…` and `test-…` shards in `output`, with their tables.

    About `eval_share` of each class is held out for evaluation and `validation_share` for validation: whole plates
    where they are known, single images if there are too few plates. Files that cannot be read, and copies of one file
    with different labels, are listed in `import.errors.csv`. The tables are `sources.csv` and `labels-*.csv`. `output`
    must be new or empty; it appears when everything is written. A shard has at most `shard_images` images. `bits`: see
    `pictures.upright`. A table's own splits are kept, also if some have no image.

    Raises `InputError` if a split would have no image, `output` is not empty or a share does not fit.
    """
    shares = {shards.EVAL: eval_share, shards.VALIDATION: validation_share}
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        raise errors.InputError(
            f"eval_share is {eval_share} and validation_share {validation_share}; give two shares above 0 that leave "
            "some images to train on"
        )
    store.require_new_or_empty(output)
    reasons = _contradictions(table)
    usable = [image for image in table.images if image.key not in reasons]
    if len(usable) <= len(shares) and not table.splits:
        but = f"{len(reasons)} more are copies with different labels; " if reasons else ""
        raise errors.InputError(f"there are only {len(usable)} images for three splits; {but}add images")
    splits, warnings = (table.splits, []) if table.splits else _draw_splits(usable, shares)
    if table.left_out:
        warnings.append(f"left out, thumbnails and focus slices of drops with a better image: {table.left_out}")
    warnings += table.notes
    written = {}
    with store.whole_directory(output) as folder:
        with progress.progress("importing", len(usable)) as advance:
            for split, stem in _SHARD_STEMS.items():
                images = [image for image in usable if splits[image.key] == split]
                # Not class after class: whatever reads the shards from their beginning sees all classes.
                images.sort(key=_order)
                records = _records(images, table, bits, reasons, advance)
                written[split] = shards.write_shards(folder, stem, records, shard_images)
        skipped = [
            (image_files.as_text(image.path), reasons[image.key]) for image in table.images if image.key in reasons
        ]
        if not any(written.values()):
            path, reason = skipped[0]
            raise errors.InputError(f"none of {len(skipped)} images could be read; the first, {path!r}: {reason}")
        for split, count in written.items():
            if not count and not table.splits:
                first = "".join(f"; the first of {len(skipped)} left out: {path}: {why}" for path, why in skipped[:1])
                raise errors.InputError(
                    f"the {split} split has none of {sum(written.values())} readable images; add images{first}"
                )
        name_tables.write_tables(folder, table.sources, table.classes, table.raw_labels)
        if skipped:
            name_tables.write_csv(folder / ERRORS_FILE, ("path", "reason"), skipped)
    used = [image for image in table.images if image.key not in reasons]
    return Imported(written, skipped, [*warnings, *_scarce_classes(used, splits, table.classes)])


def _contradictions(table: label_tables.LabelTable) -> dict[int, str]:
    """Returns, by key, the images whose file has copies with other labels, each with the reason to leave it out."""
    by_size: dict[int, list[label_tables.LabelledImage]] = collections.defaultdict(list)
    for image in table.images:
        with contextlib.suppress(OSError):
            by_size[image.path.stat().st_size].append(image)
    copies: dict[bytes, list[label_tables.LabelledImage]] = collections.defaultdict(list)
    for alike in by_size.values():
        for image in alike if len({image.label for image in alike}) > 1 else ():
            with contextlib.suppress(errors.InputError):
                copies[hashlib.blake2b(image_files.read_file(image.path)).digest()].append(image)
    reasons = {}
    for alike in copies.values():
        for image in alike:
            if other := next((other for other in alike if other.label != image.label), None):
                label, other_label = table.classes[image.label], table.classes[other.label]
                reasons[image.key] = (
                    f"labelled {label!r}, and its copy {image_files.as_text(other.path)} {other_label!r}; keep one"
                )
    return reasons


def _order(image: label_tables.LabelledImage) -> tuple[float, int]:
    """Sorts images into an order that an export of the set and a second import keep."""
    return shards.hashed_draw(f"order {image_files.as_text(f'{image.plate}/{image.path.name}')}"), image.key


def _draw_splits(
    images: Sequence[label_tables.LabelledImage], shares: Mapping[str, float]
) -> tuple[dict[int, str], list[str]]:
    """Returns the split by image id, and what to know of it; `shares` are those of the splits that are held out.

    Plates, and images without a plate, are visited in the order of a hash; each is held out if that brings the classes
    together closer to the share. If that holds out everything, or of any class less than half of the share, single
    images are held out instead.
    """
    warnings = []
    unknown = sum(not image.plate for image in images)
    if unknown:
        warnings.append(
            f"{unknown} of {len(images)} images have no plate in their name or folder: drawn image by image, so that "
            "pictures of one plate may be in both splits; --names reads your own names (docs/data.md)"
        )
    splits = dict.fromkeys((image.key for image in images), shards.TRAIN)
    remaining = list(images)
    for split, share in shares.items():
        share *= len(images) / len(remaining)
        plates: dict[str, list[label_tables.LabelledImage]] = {}
        for image in remaining:
            plates.setdefault(image.plate or f"image {image.key}", []).append(image)
        held_out = _hold_out(list(plates.values()), share)
        if not (0 < len(held_out) < len(remaining) and _has_every_class(remaining, held_out, share / 2)):
            alone = sorted(remaining, key=lambda image: shards.hashed_draw(f"group {image.key}"))
            held_out = _hold_out([[image] for image in alone], share) or {image.key for image in alone[:1]}
            if unknown < len(images):
                warnings.append(
                    f"too few plates, or too unlike ones, to hold out whole ones for the {split} split: drawn image by "
                    "image"
                )
        splits |= dict.fromkeys(held_out, split)
        remaining = [image for image in remaining if image.key not in held_out]
    return splits, warnings


def _has_every_class(images: Sequence[label_tables.LabelledImage], held_out: set[int], share: float) -> bool:
    totals = collections.Counter(image.label for image in images)
    counts = collections.Counter(image.label for image in images if image.key in held_out)
    return all(counts[label] >= int(share * total) for label, total in totals.items())


def _hold_out(groups: Sequence[Sequence[label_tables.LabelledImage]], share: float) -> set[int]:
    """Returns the ids of the groups that are held out, so that of each class about `share` is."""
    totals = collections.Counter(image.label for group in groups for image in group)
    count = totals.total()
    # At least one image on either side.
    share = min(max(share, 1 / count), 1 - 1 / count)
    missing = {label: share * total for label, total in totals.items()}
    held_out: set[int] = set()
    for group in sorted(groups, key=lambda group: shards.hashed_draw(f"group {min(image.key for image in group)}")):
        classes = collections.Counter(image.label for image in group)
        gain = sum(abs(missing[label]) - abs(missing[label] - number) for label, number in classes.items())
        if gain > 0:
            held_out.update(image.key for image in group)
            for label, number in classes.items():
                missing[label] -= number
    return held_out


def _scarce_classes(
    images: Sequence[label_tables.LabelledImage], splits: Mapping[int, str], classes: Mapping[int, str]
) -> Iterator[str]:
    """Yields a warning for each split with classes of fewer images than `SCARCE` says."""
    for split, (purpose, enough) in SCARCE.items():
        counts = collections.Counter(classes[image.label] for image in images if splits[image.key] == split)
        scarce = [f"{name} {counts[name]}" for name in classes.values() if counts[name] < enough]
        if scarce:
            yield f"few images to {purpose} in the {split} split: {', '.join(scarce)}"


def _records(
    images: Sequence[label_tables.LabelledImage],
    table: label_tables.LabelTable,
    bits: int | None,
    reasons: dict[int, str],
    advance: Callable[..., None],
) -> Iterator[bytes]:
    """Yields the serialized examples, made on all cores batch by batch; `reasons` gets, by id, why one has none."""
    with ThreadPoolExecutor(pixels.cores()) as pool:
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            records = pool.map(lambda image: _record(image, table, bits), batch)
            for image, record in zip(batch, records, strict=True):
                if isinstance(record, str):
                    reasons[image.key] = record
                else:
                    yield record
                advance(1)


def _record(image: label_tables.LabelledImage, table: label_tables.LabelTable, bits: int | None) -> bytes | str:
    """Returns the serialized example of an image, or the reason why it has none."""
    filename = image_files.as_text(image.path.name)
    try:
        content = image_files.read_file(image.path)
        encoded = pictures.upright(content, bits)
        if len(encoded) > _MAX_IMAGE_BYTES:
            return f"{len(encoded):,} bytes are more than the {_MAX_IMAGE_BYTES:,} that fit into a record"
        height, width, _ = pixels.decode(encoded).shape
    except errors.InputError as error:
        return str(error)
    example = contract.build_example(
        encoded=encoded,
        image_format=image_files.image_header(encoded).format,
        height=height,
        width=width,
        filename=filename,
        image_id=stable_id(table.sources[image.source], filename, content)
        if image.image_id is None
        else image.image_id,
        label=image.label,
        label_text=table.classes[image.label],
        label_raw=image.label_raw,
        source=image.source,
        plate=image_files.as_text(image.plate),
    )
    return bytes(example.SerializeToString(deterministic=True))


def stable_id(institution: str, filename: str, content: bytes) -> int:
    """Returns an id of at most 15 digits, which spreadsheets keep, by institution, base name and a file's bytes.

    So that sets can be joined: images of one name differ by their bytes, and a class that is corrected changes no id.
    """
    digest = hashlib.blake2b(f"{institution}\0{filename}\0".encode(), digest_size=8)
    digest.update(content)
    return int.from_bytes(digest.digest(), "big") % 10**15
