"""Tables of your own images and their labels, which `marco data import` reads.

`from_folder` and `from_csv` return a table: MARCO's classes, or raw labels of any names, which a label scheme maps to
classes later (docs/labels.md).
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from marco_data import image_files, name_tables, place_reader, places, shards
from marco_model import errors, labels

TERF_HEADER = ("image_path", "image_id", "label_id", "label_text", "label_raw", "source")
SIMPLE_HEADER = ("filename", "label")
PLATE, SPLIT = "plate", "split"
"""Columns that either may have too."""
_REASONS = 10
"""Most unknown labels that a message names."""
_CLASS_BY_NAME = {name.casefold(): number for number, name in enumerate(labels.CLASSES)}


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An image to import: its file, and its class, raw label and institution as numbers of the table's names.

    `key`: differs between the images of a table; splits and order are drawn by it. `image_id`: the table's; None for
    that of `importing.stable_id`. With raw labels only, the class is the raw label. `plate`: see
    `marco_data.places.plate_group`; its path begins below the folder of the set or of the class.
    """

    path: Path
    key: int
    label: int
    label_raw: int
    source: int
    plate: str = ""
    image_id: int | None = None


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The images of a set, and the names of their classes, raw labels and sources by number.

    `left_out`: how many files are thumbnails or focus slices of an image (`marco_data.places.main_images`). `notes`:
    which files were passed over, and how many rows of `--names` have no image. `splits`: the split by key, if splits
    are kept.
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
    folder's name is not a class, unless `raw_labels`, if its target is gone, and if there are no images.
    """
    if not folder.is_dir():
        raise errors.InputError(f"{str(folder)!r} is not a folder; give one that has a folder for each class, or --csv")
    sources, source = _with_institution(institution)
    children = sorted(path for path in folder.iterdir() if _is_class_folder(path))
    named = [(f"folder {str(child)!r}", image_files.as_text(child.name)) for child in children]
    classes, numbers = _label_numbers(named, raw_labels)
    images: list[LabelledImage] = []
    left_out = 0
    notes = []
    beside = sum(image_files.has_image_ending(path.name) and not path.is_dir() for path in folder.iterdir())
    if beside:
        notes.append(f"passed over, beside the class folders and so without a label: {beside} images")
    for child, (_, name), label in zip(children, named, numbers, strict=True):
        listing = image_files.find_images([child])
        files = listing.files
        if summary := listing.summary():
            notes.append(f"{name}: {summary}")
        main = places.main_images(files)
        left_out += len(files) - len(main)
        images += [
            LabelledImage(
                path,
                _key(institution, path.relative_to(folder)),
                label,
                label,
                source,
                str(path.relative_to(child)),
            )
            for path in main
        ]
    if not images:
        expected = "" if raw_labels else f" named {', '.join(labels.CLASSES)}"
        raise errors.InputError(f"{str(folder)!r} holds no folder{expected} with images in it")
    plated, unused = _with_plates(images, names)
    return LabelTable(plated, classes, classes, sources, left_out, [*notes, *unused])


def _is_class_folder(path: Path) -> bool:
    if image_files.is_left_out(path.name):
        return False
    if path.is_symlink() and not path.exists() and not image_files.has_image_ending(path.name):
        raise errors.InputError(
            f"{path} links to {path.readlink()}, which does not exist: the images of a class may be there; restore it, "
            "or remove the link"
        )
    return path.is_dir()


def _with_plates(images: Sequence[LabelledImage], names: str) -> tuple[tuple[LabelledImage, ...], list[str]]:
    """Returns images with their plates, for images with their paths below the set or the class instead, and notes."""
    if not names:
        groups = map(places.plate_group, _below_class([Path(image.plate) for image in images]))
        return tuple(dataclasses.replace(image, plate=group) for image, group in zip(images, groups, strict=True)), []
    paths = [image.path for image in images]
    place_of = place_reader.reader(paths, names)
    plated = tuple(dataclasses.replace(image, plate=place_of(image.path).group) for image in images)
    return plated, list(filter(None, [place_reader.unused_rows(place_of, paths)]))


def _below_class(paths: Sequence[Path]) -> Sequence[Path]:
    """Returns paths as they begin below the class folders, if one folder holds these for all; else the same paths."""
    for depth, names in enumerate(zip(*(path.parts[:-1] for path in paths), strict=False)):
        if all(name.casefold() in _CLASS_BY_NAME for name in names):
            return [Path(*path.parts[depth + 1 :]) for path in paths]
        if len(set(names)) > 1:
            break
    return paths


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
    the file may state it. `keep_splits`: the column `split` says what each image is for. Thumbnails and focus slices of
    a listed image are left out. Raises `InputError` with the number of a line that cannot be used.
    """
    root = root or path.parent
    rows = _rows(path)
    if TERF_HEADER[0] in rows[0][1]:
        table = _from_terf(path, rows, root, institution, raw_labels)
    else:
        sources, source = _with_institution(institution)
        classes, numbers = _label_numbers(_labelled(path, rows, "label"), raw_labels)
        images = []
        for (line, row), label in zip(rows, numbers, strict=True):
            where = f"{path.name}, line {line}"
            name = _file_name(row["filename"], root, where)
            images.append(LabelledImage(root / name, _key(institution, name), label, label, source, str(name)))
        table = LabelTable(tuple(images), classes, classes, sources)
    _refuse_repeats(path, [line for line, _ in rows], table)
    plated, notes = _with_plates(table.images, names)
    if PLATE in rows[0][1] and not names:
        plated = tuple(
            dataclasses.replace(image, plate=row[PLATE] or places.plate_group(image.path.name))
            for image, (_, row) in zip(plated, rows, strict=True)
        )
    splits = dict(zip((image.key for image in plated), _splits(path, rows), strict=True)) if keep_splits else {}
    main = set(places.main_images([image.path for image in plated]))
    kept = tuple(image for image in plated if image.path in main)
    return dataclasses.replace(table, images=kept, left_out=len(plated) - len(kept), notes=notes, splits=splits)


def _splits(path: Path, rows: list[tuple[int, dict[str, str]]]) -> Iterator[str]:
    if SPLIT not in rows[0][1]:
        raise errors.InputError(
            f"{path.name} has no column {SPLIT} to keep splits of; add it with {', '.join(shards.SPLITS)}, "
            "or leave --keep-splits out"
        )
    for line, row in rows:
        if row[SPLIT] not in shards.SPLITS:
            raise errors.InputError(
                f"{path.name}, line {line}: split is {row[SPLIT]!r}; expected one of {', '.join(shards.SPLITS)}"
            )
        yield row[SPLIT]


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Returns the line number and the cells by column of each row that is not empty; checks the header."""
    text = name_tables.read_csv_text(path)
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
    raw_labels, raw_numbers = _label_numbers(_labelled(path, rows, "label_raw"), True)
    numbers = raw_numbers if only_raw else _terf_classes(path, rows)
    if all(name_tables.is_number(row["label_raw"]) for _, row in rows):
        raw_labels = {**raw_labels, **_table_beside(path, name_tables.RAW_LABELS_FILE)}
    sources, source = _with_institution(institution)
    by_text = dict.fromkeys({row["source"] for _, row in rows}, source)
    if not institution:
        known = _table_beside(path, name_tables.SOURCES_FILE)
        by_text = _numbered(set(by_text), {name: number for number, name in (known or name_tables.TABLE_I).items()})
        names = {text: f"source {text}" if name_tables.is_number(text) else text for text in by_text}
        sources = known | {number: known.get(number, names[text]) for text, number in by_text.items()}
    images = []
    for (line, row), label, raw in zip(rows, numbers, raw_numbers, strict=True):
        where = f"{path.name}, line {line}"
        if not name_tables.is_number(row["image_id"]):
            raise errors.InputError(
                f"{where}: image_id is {row['image_id']!r}; expected a whole number, as before a spreadsheet saved it"
            )
        name, image_id = _file_name(row["image_path"], root, where), int(row["image_id"])
        images.append(LabelledImage(root / name, image_id, label, raw, by_text[row["source"]], str(name), image_id))
    name_tables.refuse_rounded_ids([image.key for image in images], path.name)
    return LabelTable(tuple(images), raw_labels if only_raw else dict(enumerate(labels.CLASSES)), raw_labels, sources)


def _table_beside(path: Path, name: str) -> dict[int, str]:
    table = path.parent / name
    return name_tables.read_table(table) if table.exists() else {}


def _labelled(path: Path, rows: list[tuple[int, dict[str, str]]], *columns: str) -> list[tuple[str, str]]:
    """Returns the place of each row, for messages, and its label: in the first of `columns` that is not empty."""
    return [
        (f"{path.name}, line {line}", next(filter(None, (row[column] for column in columns)), "")) for line, row in rows
    ]


def _terf_classes(path: Path, rows: list[tuple[int, dict[str, str]]]) -> list[int]:
    numbers = _class_numbers(_labelled(path, rows, "label_text", "label_id"), by_number=True)
    by_id = _class_numbers(_labelled(path, rows, "label_id", "label_text"), by_number=True)
    for (line, row), number, other in zip(rows, numbers, by_id, strict=True):
        if number != other:
            raise errors.InputError(
                f"{path.name}, line {line}: label_id {row['label_id']} is not the class {row['label_text']!r}"
            )
    return numbers


def _label_numbers(labelled: Sequence[tuple[str, str]], raw_labels: bool) -> tuple[dict[int, str], list[int]]:
    """Returns the names of labels by number, and the number of each of `labelled`: its place, for messages, and text.

    Raises `InputError` for all that are not classes or, with `raw_labels`, for the first that is empty.
    """
    if not raw_labels:
        return dict(enumerate(labels.CLASSES)), _class_numbers(labelled)
    if empty := next((where for where, text in labelled if not text), None):
        raise errors.InputError(f"{empty}: the label is empty; give each image one")
    numbers = _numbered({text for _, text in labelled}, {})
    # A name of digits only would be read as a number in labels-raw.csv.
    names = {number: f"label {text}" if name_tables.is_number(text) else text for text, number in numbers.items()}
    return dict(sorted(names.items())), [numbers[text] for _, text in labelled]


def _class_numbers(labelled: Iterable[tuple[str, str]], by_number: bool = False) -> list[int]:
    """Returns the class of each label by its name; the numbers of a laboratory's own scale are no classes.

    `by_number`: MARCO's own numbers are. Raises `InputError` that names each unknown label, its first place and how
    many more there are.
    """
    known = _CLASS_BY_NAME | ({str(number): number for number in range(len(labels.CLASSES))} if by_number else {})
    unknown: dict[str, list[str]] = {}
    numbers = []
    for where, text in labelled:
        numbers.append(known.get(text.casefold(), -1))
        if numbers[-1] < 0:
            unknown.setdefault(text, []).append(where)
    if unknown:
        reasons = []
        for text, (first, *more) in list(unknown.items())[:_REASONS]:
            reason = f"label {text!r} is a number" if name_tables.is_number(text) else f"class {text!r} is unknown"
            reasons.append(f"{first}{f' and {len(more)} more' if more else ''}: {reason}")
        if len(unknown) > _REASONS:
            reasons.append(f"{len(unknown) - _REASONS} more labels like these")
        expected = f"expected one of {', '.join(labels.CLASSES)}, or labels of your own with --raw-labels"
        raise errors.InputError("; ".join([*reasons, expected]))
    return numbers


def _numbered(texts: set[str], known: Mapping[str, int]) -> dict[str, int]:
    """Returns numbers for texts: their values if all are whole numbers, else known ones and new ones after these."""
    if all(name_tables.is_number(text) for text in texts):
        return {text: int(text) for text in texts}
    new = sorted(texts - set(known))
    first = max(known.values(), default=-1) + 1
    numbers = {**known, **{text: first + place for place, text in enumerate(new)}}
    return {text: numbers[text] for text in texts}


def _with_institution(institution: str) -> tuple[dict[int, str], int]:
    """Returns Table I's sources with `institution` among them, and its number."""
    names = list(dict.fromkeys([*name_tables.INSTITUTIONS, institution or name_tables.UNKNOWN]))
    return dict(enumerate(names)), names.index(institution or name_tables.UNKNOWN)


def _key(institution: str, name: Path) -> int:
    text = f"{institution}\0{name.as_posix()}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 12


def _file_name(text: str, root: Path, where: str) -> Path:
    """Returns the path in a cell, which Windows may have written; raises `InputError` if it cannot be one."""
    if not text or "\0" in text:
        raise errors.InputError(f"{where}: the file name {'has a zero byte' if text else 'is empty'}")
    if "\\" in text and not os.path.lexists(root / text):  # Path.exists raises for a name that is too long.
        text = text.replace("\\", "/")
    return Path(text)


def _refuse_repeats(path: Path, lines: list[int], table: LabelTable) -> None:
    seen: dict[object, int] = {}
    for line, image in zip(lines, table.images, strict=True):
        for key in (os.path.realpath(image.path), image.key):
            if key in seen:
                raise errors.InputError(
                    f"{path.name}, line {line}: {image.path.name!r} or its id is on line {seen[key]} already"
                )
            seen[key] = line
