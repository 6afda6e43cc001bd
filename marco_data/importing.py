"""Your own images as a set of MARCO shards (`marco data import`).

`from_folder` and `from_csv` read a table of images and their labels: MARCO's classes, or raw labels of any names, which
a label scheme maps to classes later (docs/labels.md). `import_images` reads the images of a table, draws training and
evaluation split, and writes shards and the tables beside them.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from marco_data import (
    contract,
    folder_walk,
    image_files,
    name_tables,
    place_reader,
    places,
    progress,
    shards,
    tfrecord,
)
from marco_model import errors, labels, pixels, store

ERRORS_FILE = "import.errors.csv"
TERF_HEADER = ("image_path", "image_id", "label_id", "label_text", "label_raw", "source")
SIMPLE_HEADER = ("filename", "label")
PLATE, SPLIT = "plate", "split"
"""Columns that either may have too."""
_SHARD_STEMS = {shards.TRAIN: "train", shards.VALIDATION: "validation", shards.EVAL: "test"}
_BATCH = 32
_MAX_IMAGE_BYTES = tfrecord.MAX_RECORD_BYTES - (1 << 20)
SCARCE = {
    shards.TRAIN: ("learn a class from", 20),
    shards.VALIDATION: ("choose the weights by", 5),
    shards.EVAL: ("judge a class from", 20),
}
"""Images of a class below which an import warns, and what they are for. The gate judges no slice of fewer than 20."""
_CLASS_BY_NAME = {name.casefold(): number for number, name in enumerate(labels.CLASSES)}


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An image to import: its file and id, and its class, raw label and institution as numbers of the table's names.

    With raw labels only, the class is the raw label. `plate`: see `marco_data.places.plate_group`; its path begins
    below the folder of the set or of the class.
    """

    path: Path
    image_id: int
    label: int
    label_raw: int
    source: int
    plate: str = ""


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The images of a set, and the names of their classes, raw labels and sources by number.

    `left_out`: how many files are thumbnails or focus slices of an image (`marco_data.places.main_images`). `notes`:
    which files were passed over. `splits`: the split by image id, if splits are kept.
    """

    images: tuple[LabelledImage, ...]
    classes: Mapping[int, str]
    raw_labels: Mapping[int, str]
    sources: Mapping[int, str]
    left_out: int = 0
    notes: Sequence[str] = ()
    splits: Mapping[int, str] = dataclasses.field(default_factory=dict)


def from_folder(folder: Path, institution: str = "", raw_labels: bool = False, names: str = "") -> LabelTable:
    """Reads a folder that has one folder per class, or with `raw_labels` per raw label.

    `institution` names the source of all images. `names`: see `marco_data.place_reader`. Raises `InputError` if a
    folder's name is not a class, unless `raw_labels`, and if there are no images.
    """
    if not folder.is_dir():
        raise errors.InputError(f"{str(folder)!r} is not a folder; give one that has a folder for each class, or --csv")
    sources, source = _with_institution(institution)
    children = sorted(path for path in folder.iterdir() if path.is_dir() and not folder_walk.is_left_out(path.name))
    classes, number_of = _label_numbers((child.name for child in children), raw_labels)
    images: list[LabelledImage] = []
    left_out = 0
    notes = []
    beside = sum(image_files.has_image_ending(path.name) and not path.is_dir() for path in folder.iterdir())
    if beside:
        notes.append(f"passed over, beside the class folders and so without a label: {beside} images")
    for child in children:
        listing = image_files.find_images([child])
        files = listing.files
        if summary := listing.summary():
            notes.append(f"{child.name}: {summary}")
        main = places.main_images(files)
        left_out += len(files) - len(main)
        label = number_of(child.name, f"folder {str(child)!r}")
        images += [
            LabelledImage(
                path,
                _stable_id(institution, path.relative_to(folder)),
                label,
                label,
                source,
                str(path.relative_to(child)),
            )
            for path in main
        ]
    if not images:
        named = "" if raw_labels else f" named {', '.join(labels.CLASSES)}"
        raise errors.InputError(f"{str(folder)!r} holds no folder{named} with images in it")
    return LabelTable(_with_plates(images, names), classes, classes, sources, left_out, notes)


def _with_plates(images: Sequence[LabelledImage], names: str) -> tuple[LabelledImage, ...]:
    """Returns images with their plates, for images with their paths below the set or the class instead."""
    if not names:
        return tuple(dataclasses.replace(image, plate=places.plate_group(image.plate)) for image in images)
    place_of = place_reader.reader([image.path for image in images], names)
    return tuple(dataclasses.replace(image, plate=place_of(image.path).group) for image in images)


def from_csv(
    path: Path,
    root: Path | None = None,
    institution: str = "",
    raw_labels: bool = False,
    names: str = "",
    keep_splits: bool = False,
) -> LabelTable:
    """Reads a CSV file with the header `filename,label` or terf's (ubccr/terf, `TERF_HEADER`).

    Paths are relative to `root`, by default the CSV's own folder. `institution` replaces the CSV's sources.
    `raw_labels`: `label`, or terf's `label_raw`, are raw labels of any names, and classes are ignored. `names`: see
    `marco_data.place_reader`. A column `plate` states the plates, unless `names` does; where it is empty, the name of
    the file may state it. `keep_splits`: the column `split` says what each image is for. Raises `InputError` with the
    number of a line that cannot be used.
    """
    root = root or path.parent
    rows = _rows(path)
    if TERF_HEADER[0] in rows[0][1]:
        table = _from_terf(path, rows, root, institution, raw_labels)
    else:
        sources, source = _with_institution(institution)
        classes, number_of = _label_numbers((row["label"] for _, row in rows), raw_labels)
        images = []
        for line, row in rows:
            label = number_of(row["label"], f"{path.name}, line {line}")
            name = Path(row["filename"])
            image_id = _stable_id(institution, name)
            images.append(LabelledImage(root / name, image_id, label, label, source, str(name)))
        table = LabelTable(tuple(images), classes, classes, sources)
    _refuse_repeats(path, [line for line, _ in rows], table)
    plated = _with_plates(table.images, names)
    if PLATE in rows[0][1] and not names:
        plated = tuple(
            dataclasses.replace(image, plate=row[PLATE] or places.plate_group(image.path.name))
            for image, (_, row) in zip(plated, rows, strict=True)
        )
    splits = dict(zip((image.image_id for image in plated), _splits(path, rows), strict=True)) if keep_splits else {}
    return dataclasses.replace(table, images=plated, splits=splits)


def _splits(path: Path, rows: list[tuple[int, dict[str, str]]]) -> Iterator[str]:
    for line, row in rows:
        if row.get(SPLIT) not in shards.SPLITS:
            raise errors.InputError(
                f"{path.name}, line {line}: split is {row.get(SPLIT, '')!r}; expected one of {', '.join(shards.SPLITS)}"
            )
        yield row[SPLIT]


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Returns the line number and the cells by column of each row that is not empty; checks the header."""
    message = f"{str(path)!r} cannot be read as UTF-8 text: {{}}"
    with errors.translated(errors.InputError, message, OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8-sig")
    header, rows = name_tables.read_cells(text)
    if not any(set(names) <= set(header) for names in (TERF_HEADER, SIMPLE_HEADER)):
        expected = " or ".join(",".join(names) for names in (SIMPLE_HEADER, TERF_HEADER))
        first = text.partition("\n")[0].strip()
        raise errors.InputError(f"{path.name} has the header {first!r}; expected {expected}")
    if not rows:
        raise errors.InputError(f"{path.name} lists no images")
    for line, cells in rows:
        if len(cells) != len(header):
            raise errors.InputError(f"{path.name}, line {line}: {len(cells)} cells, the header has {len(header)}")
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in rows]


def _from_terf(
    path: Path, rows: list[tuple[int, dict[str, str]]], root: Path, institution: str, only_raw: bool
) -> LabelTable:
    if not only_raw:
        rows = [(line, {**row, "label_raw": row["label_raw"] or name_tables.UNKNOWN}) for line, row in rows]
    raw_labels, raw_number_of = _label_numbers((row["label_raw"] for _, row in rows), True)
    if all(row["label_raw"].isdigit() for _, row in rows):
        raw_labels = {**raw_labels, **_table_beside(path, name_tables.RAW_LABELS_FILE)}
    sources, source = _with_institution(institution)
    by_text = dict.fromkeys({row["source"] for _, row in rows}, source)
    if not institution:
        known = _table_beside(path, name_tables.SOURCES_FILE)
        numbers = {name: number for number, name in (known or name_tables.TABLE_I).items()}
        by_text = _numbered(set(by_text), numbers)
        names = {text: f"source {text}" if text.isdigit() else text for text in by_text}
        sources = known | {number: known.get(number, names[text]) for text, number in by_text.items()}
    images = []
    for line, row in rows:
        where = f"{path.name}, line {line}"
        raw = raw_number_of(row["label_raw"], where)
        label = raw if only_raw else _terf_class(row, where)
        if not row["image_id"].isdigit():
            raise errors.InputError(f"{where}: image_id is {row['image_id']!r}; expected a whole number")
        name = Path(row["image_path"])
        image_id = int(row["image_id"])
        images.append(LabelledImage(root / name, image_id, label, raw, by_text[row["source"]], str(name)))
    return LabelTable(tuple(images), raw_labels if only_raw else dict(enumerate(labels.CLASSES)), raw_labels, sources)


def _table_beside(path: Path, name: str) -> dict[int, str]:
    table = path.parent / name
    return name_tables.parse_table(table.read_text(encoding="utf-8"), str(table)) if table.exists() else {}


def _terf_class(row: Mapping[str, str], where: str) -> int:
    label = _class_number(row["label_text"] or row["label_id"], where)
    if row["label_id"] and _class_number(row["label_id"], where) != label:
        raise errors.InputError(f"{where}: label_id {row['label_id']} is not the class {row['label_text']!r}")
    return label


def _label_numbers(texts: Iterable[str], raw_labels: bool) -> tuple[dict[int, str], Callable[[str, str], int]]:
    """Returns the names by number, and a function from a label and its place (for messages) to its number."""
    if not raw_labels:
        return dict(enumerate(labels.CLASSES)), _class_number
    numbers = _numbered(set(texts), {})
    # A name of digits only would be read as a number in labels-raw.csv.
    names = {number: f"label {text}" if text.isdigit() else text for text, number in numbers.items()}

    def number(text: str, where: str) -> int:
        if not text:
            raise errors.InputError(f"{where}: the label is empty; give each image one")
        return numbers[text]

    return dict(sorted(names.items())), number


def _numbered(texts: set[str], known: Mapping[str, int]) -> dict[str, int]:
    """Returns numbers for texts: their values if all are whole numbers, else known ones and new ones after these."""
    if all(text.isdigit() for text in texts):
        return {text: int(text) for text in texts}
    new = sorted(texts - set(known))
    first = max(known.values(), default=-1) + 1
    numbers = {**known, **{text: first + place for place, text in enumerate(new)}}
    return {text: numbers[text] for text in texts}


def _with_institution(institution: str) -> tuple[dict[int, str], int]:
    """Returns Table I's sources with `institution` among them, and its number."""
    names = list(dict.fromkeys([*name_tables.INSTITUTIONS, institution or name_tables.UNKNOWN]))
    return dict(enumerate(names)), names.index(institution or name_tables.UNKNOWN)


def _class_number(text: str, where: str) -> int:
    if text.isdigit() and int(text) < len(labels.CLASSES):
        return int(text)
    try:
        return _CLASS_BY_NAME[text.casefold()]
    except KeyError:
        raise errors.InputError(
            f"{where}: class {text!r} is unknown; expected one of {', '.join(labels.CLASSES)}, or labels of your own "
            "with --raw-labels"
        ) from None


def _stable_id(institution: str, name: Path) -> int:
    """Returns an id of 52 bits (exact in a double) that depends on institution and name only, so sets can be joined."""
    digest = hashlib.blake2b(f"{institution}\0{name.as_posix()}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 12


def _refuse_repeats(path: Path, lines: list[int], table: LabelTable) -> None:
    seen: dict[object, int] = {}
    for line, image in zip(lines, table.images, strict=True):
        for key in (image.path, image.image_id):
            if key in seen:
                raise errors.InputError(
                    f"{path.name}, line {line}: {image.path.name!r} or its id is on line {seen[key]} already"
                )
            seen[key] = line


@dataclasses.dataclass(frozen=True)
class Imported:
    """The result of an import: images by split, skipped files with the reason, and what to know of the splits."""

    written: Mapping[str, int]
    errors: Sequence[tuple[str, str]]
    warnings: Sequence[str] = ()


def import_images(
    table: LabelTable,
    output: Path,
    *,
    eval_share: float = 0.2,
    validation_share: float = 0.15,
    shard_images: int = 1024,
) -> Imported:
    """Writes the images of a table as `train-…`, `validation-…` and `test-…` shards in `output`, with their tables.

    About `eval_share` of each class is held out for evaluation and `validation_share` for validation: whole plates
    where they are known, single images if there are too few plates. Files that cannot be read are listed in
    `import.errors.csv`. The tables are `sources.csv` and `labels-*.csv`. `output` must be new or empty; it appears when
    everything is written. A shard has at most `shard_images` images. A table's own splits are kept, also if some have
    no image.

    Raises `InputError` if a split would have no image, `output` is not empty or a share does not fit.
    """
    shares = {shards.EVAL: eval_share, shards.VALIDATION: validation_share}
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        raise errors.InputError(
            f"eval_share is {eval_share} and validation_share {validation_share}; give two shares above 0 that leave "
            "some images to train on"
        )
    if len(table.images) <= len(shares) and not table.splits:
        raise errors.InputError(f"there are only {len(table.images)} images for three splits; add images")
    store.require_new_or_empty(output)
    splits, warnings = (table.splits, []) if table.splits else _draw_splits(table.images, shares)
    if table.left_out:
        warnings.append(f"left out, thumbnails and focus slices of drops with a better image: {table.left_out}")
    warnings += table.notes
    reasons: dict[int, str] = {}
    written = {}
    with store.whole_directory(output) as folder:
        with progress.progress("importing", len(table.images)) as advance:
            for split, stem in _SHARD_STEMS.items():
                images = [image for image in table.images if splits[image.image_id] == split]
                # Not class after class: whatever reads the shards from their beginning sees all classes.
                images.sort(key=lambda image: shards.hashed_draw(f"order {image.image_id}"))
                records = _records(images, table.classes, reasons, advance)
                written[split] = shards.write_shards(folder, stem, records, shard_images)
        skipped = [(str(image.path), reasons[image.image_id]) for image in table.images if image.image_id in reasons]
        if not any(written.values()):
            path, reason = skipped[0]
            raise errors.InputError(f"none of {len(skipped)} images could be read; the first, {path!r}: {reason}")
        for split, count in written.items():
            if not count and not table.splits:
                raise errors.InputError(
                    f"the {split} split has none of {sum(written.values())} readable images; add images"
                )
        name_tables.write_tables(folder, table.sources, table.classes, table.raw_labels)
        if skipped:
            name_tables.write_csv(folder / ERRORS_FILE, ("path", "reason"), skipped)
    used = [image for image in table.images if image.image_id not in reasons]
    return Imported(written, skipped, [*warnings, *_scarce_classes(used, splits, table.classes)])


def _draw_splits(images: Sequence[LabelledImage], shares: Mapping[str, float]) -> tuple[dict[int, str], list[str]]:
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
            "pictures of one plate may be in both splits"
        )
    splits = dict.fromkeys((image.image_id for image in images), shards.TRAIN)
    remaining = list(images)
    for split, share in shares.items():
        share *= len(images) / len(remaining)
        plates: dict[str, list[LabelledImage]] = {}
        for image in remaining:
            plates.setdefault(image.plate or f"image {image.image_id}", []).append(image)
        held_out = _hold_out(list(plates.values()), share)
        if not (0 < len(held_out) < len(remaining) and _has_every_class(remaining, held_out, share / 2)):
            alone = sorted(remaining, key=lambda image: shards.hashed_draw(f"group {image.image_id}"))
            held_out = _hold_out([[image] for image in alone], share) or {image.image_id for image in alone[:1]}
            if unknown < len(images):
                warnings.append(
                    f"too few plates, or too unlike ones, to hold out whole ones for the {split} split: drawn image by "
                    "image"
                )
        splits |= dict.fromkeys(held_out, split)
        remaining = [image for image in remaining if image.image_id not in held_out]
    return splits, warnings


def _has_every_class(images: Sequence[LabelledImage], held_out: set[int], share: float) -> bool:
    totals = collections.Counter(image.label for image in images)
    counts = collections.Counter(image.label for image in images if image.image_id in held_out)
    return all(counts[label] >= int(share * total) for label, total in totals.items())


def _hold_out(groups: Sequence[Sequence[LabelledImage]], share: float) -> set[int]:
    """Returns the ids of the groups that are held out, so that of each class about `share` is."""
    totals = collections.Counter(image.label for group in groups for image in group)
    count = totals.total()
    # At least one image on either side.
    share = min(max(share, 1 / count), 1 - 1 / count)
    missing = {label: share * total for label, total in totals.items()}
    held_out: set[int] = set()
    for group in sorted(groups, key=lambda group: shards.hashed_draw(f"group {min(i.image_id for i in group)}")):
        classes = collections.Counter(image.label for image in group)
        gain = sum(abs(missing[label]) - abs(missing[label] - number) for label, number in classes.items())
        if gain > 0:
            held_out.update(image.image_id for image in group)
            for label, number in classes.items():
                missing[label] -= number
    return held_out


def _scarce_classes(
    images: Sequence[LabelledImage], splits: Mapping[int, str], classes: Mapping[int, str]
) -> Iterator[str]:
    """Yields a warning for each split with classes of fewer images than `SCARCE` says."""
    for split, (purpose, enough) in SCARCE.items():
        counts = collections.Counter(classes[image.label] for image in images if splits[image.image_id] == split)
        scarce = [f"{name} {counts[name]}" for name in classes.values() if counts[name] < enough]
        if scarce:
            yield f"few images to {purpose} in the {split} split: {', '.join(scarce)}"


def _records(
    images: Sequence[LabelledImage], classes: Mapping[int, str], reasons: dict[int, str], advance: Callable[..., None]
) -> Iterator[bytes]:
    """Yields the serialized examples, made on all cores batch by batch; `reasons` gets, by id, why one has none."""
    with ThreadPoolExecutor(pixels.cores()) as pool:
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            records = pool.map(lambda image: _record(image, classes[image.label]), batch)
            for image, record in zip(batch, records, strict=True):
                if isinstance(record, str):
                    reasons[image.image_id] = record
                else:
                    yield record
                advance(1)


def _record(image: LabelledImage, class_name: str) -> bytes | str:
    """Returns the serialized example of an image, or the reason why it has none."""
    try:
        encoded = image_files.encoded_image(image.path)
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
        filename=image.path.name,
        image_id=image.image_id,
        label=image.label,
        label_text=class_name,
        label_raw=image.label_raw,
        source=image.source,
        plate=image.plate,
    )
    return bytes(example.SerializeToString(deterministic=True))
