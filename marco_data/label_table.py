"""Tables of images and their labels, from a CSV file or from one folder per label.

Labels are MARCO's classes, or raw labels of any names, which a label scheme maps to classes later (docs/labels.md).
"""

import csv
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from marco_data import image_files
from marco_data.name_tables import INSTITUTIONS, SOURCES_FILE, TABLE_I, UNKNOWN, parse_table
from marco_model import errors, labels

TERF_HEADER = ("image_path", "image_id", "label_id", "label_text", "label_raw", "source")
SIMPLE_HEADER = ("filename", "label")

_CLASS_BY_NAME = {name.casefold(): number for number, name in enumerate(labels.CLASSES)}


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An image to import: its file and id, and its class, raw label and institution as numbers of the table's names.

    With raw labels only, the class is the raw label.
    """

    path: Path
    image_id: int
    label: int
    label_raw: int
    source: int


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The images of a set, and the names of their classes, raw labels and sources by number."""

    images: tuple[LabelledImage, ...]
    classes: Mapping[int, str]
    raw_labels: Mapping[int, str]
    sources: Mapping[int, str]


def from_folder(folder: Path, institution: str = "", raw_labels: bool = False) -> LabelTable:
    """Reads a folder that has one folder per class, or with `raw_labels` per raw label.

    `institution` names the source of all images. Raises `InputError` if a folder's name is not a class, unless
    `raw_labels`, and if there are no images.
    """
    if not folder.is_dir():
        raise errors.InputError(f"{str(folder)!r} is not a folder; give one that has a folder for each class, or --csv")
    sources, source = _with_institution(institution)
    children = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    classes, number_of = _label_numbers((child.name for child in children), raw_labels)
    images = []
    for child in children:
        label = number_of(child.name, f"folder {str(child)!r}")
        images += [
            LabelledImage(path, _stable_id(institution, path.relative_to(folder)), label, label, source)
            for path in image_files.find_images([child])
        ]
    if not images:
        named = "" if raw_labels else f" named {', '.join(labels.CLASSES)}"
        raise errors.InputError(f"{str(folder)!r} holds no folder{named} with images in it")
    return LabelTable(tuple(images), classes, classes, sources)


def from_csv(path: Path, root: Path | None = None, institution: str = "", raw_labels: bool = False) -> LabelTable:
    """Reads a CSV file with the header `filename,label` or terf's (ubccr/terf, `TERF_HEADER`).

    Paths are relative to `root`, by default the CSV's own folder. `institution` replaces the CSV's sources.
    `raw_labels`: `label`, or terf's `label_raw`, are raw labels of any names, and classes are ignored. Raises
    `InputError` with the number of a line that cannot be used.
    """
    root = root or path.parent
    rows = list(_rows(path))
    if TERF_HEADER[0] in rows[0][1]:
        table = _from_terf(path, rows, root, institution, raw_labels)
    else:
        sources, source = _with_institution(institution)
        classes, number_of = _label_numbers((row["label"] for _, row in rows), raw_labels)
        images = []
        for line, row in rows:
            label = number_of(row["label"], f"{path.name}, line {line}")
            file = root / row["filename"]
            images.append(LabelledImage(file, _stable_id(institution, Path(row["filename"])), label, label, source))
        table = LabelTable(tuple(images), classes, classes, sources)
    _refuse_repeats(path, [line for line, _ in rows], table)
    return table


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields line numbers and cells; checks the header, strips cells, skips empty lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InputError(f"{str(path)!r} cannot be read as UTF-8 text: {error}") from None
    first = text.split("\n", 1)[0]
    reader = csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count))
    header = [cell.strip().lower() for cell in next(reader, [])]
    if not any(set(names) <= set(header) for names in (TERF_HEADER, SIMPLE_HEADER)):
        expected = " or ".join(",".join(names) for names in (SIMPLE_HEADER, TERF_HEADER))
        raise errors.InputError(f"{path.name} has the header {first.strip()!r}; expected {expected}")
    empty = True
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise errors.InputError(
                f"{path.name}, line {reader.line_num}: {len(cells)} cells, the header has {len(header)}"
            )
        empty = False
        yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    if empty:
        raise errors.InputError(f"{path.name} lists no images")


def _from_terf(
    path: Path, rows: list[tuple[int, dict[str, str]]], root: Path, institution: str, only_raw: bool
) -> LabelTable:
    if not only_raw:
        rows = [(line, {**row, "label_raw": row["label_raw"] or UNKNOWN}) for line, row in rows]
    raw_labels, raw_number_of = _label_numbers((row["label_raw"] for _, row in rows), True)
    sources, source = _with_institution(institution)
    by_text = dict.fromkeys({row["source"] for _, row in rows}, source)
    if not institution:
        beside = path.parent / SOURCES_FILE
        known = parse_table(beside.read_text(encoding="utf-8"), str(beside)) if beside.exists() else {}
        by_text = _numbered(set(by_text), {name: number for number, name in (known or TABLE_I).items()})
        sources = {number: known.get(number, f"source {text}" if text.isdigit() else text)
                   for text, number in by_text.items()}  # fmt: skip
    images = []
    for line, row in rows:
        where = f"{path.name}, line {line}"
        raw = raw_number_of(row["label_raw"], where)
        label = raw if only_raw else _terf_class(row, where)
        if not row["image_id"].isdigit():
            raise errors.InputError(f"{where}: image_id is {row['image_id']!r}; expected a whole number")
        file = root / row["image_path"]
        images.append(LabelledImage(file, int(row["image_id"]), label, raw, by_text[row["source"]]))
    return LabelTable(tuple(images), raw_labels if only_raw else dict(enumerate(labels.CLASSES)), raw_labels, sources)


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
    name = institution or UNKNOWN
    if name in INSTITUTIONS:
        return dict(TABLE_I), INSTITUTIONS.index(name)
    return {**TABLE_I, len(INSTITUTIONS): name}, len(INSTITUTIONS)


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
