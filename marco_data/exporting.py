"""The images of shards as files again (`marco data export`), of which `marco data import` makes the same set."""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from marco_data import contract, image_files, label_tables, name_tables, progress, shards, tfrecord
from marco_model import errors, store

LABELS_FILE, ERRORS_FILE = "labels.csv", "export.errors.csv"
HEADER = (*label_tables.TERF_HEADER, label_tables.PLATE, label_tables.SPLIT)
ERRORS_HEADER = ("shard", "index", "reason")
_LONGEST_NAME = 120
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any ending."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The records to export; an empty field stands for all. The case of classes and institutions does not count."""

    splits: Sequence[str] = ()
    classes: Sequence[str] = ()
    institutions: Sequence[str] = ()


class Exported(NamedTuple):
    """How many images of each class were written, repeats of an id left out, and records that could not be used.

    Each of these with its shard, its index there and the reason.
    """

    by_class: dict[str, int]
    repeated: int
    failures: Sequence[tuple[str, int, str]]


class _Image(NamedTuple):
    """A record's image and what `labels.csv` lists of it; `source` is the number of `institution`."""

    encoded: bytes
    filename: str
    image_id: int
    label: int
    class_name: str
    label_raw: int
    source: int
    institution: str
    plate: str


def export_images(paths: Sequence[str], output: Path, choice: Choice | None = None) -> Exported:
    """Writes the images of shards, or of what ExampleGen wrote, as `output/CLASS/FILENAME`, and `labels.csv`.

    The bytes are those of the records. `labels.csv` has the columns `HEADER`; `sources.csv` and `labels-raw.csv` name
    its numbers, which are the records' own unless two sets give one number two names. Names that a file system may
    refuse are changed, and of files of one name in a class all but the first are in a folder named by the image's id.
    Of records with one id, that of the evaluation split is written, else the first. Records that cannot be used are
    listed in `export.errors.csv`. `output` must be new or empty; it appears when everything is written.

    Raises `InputError` if there are no shards or no such records, or if `output` is not empty.
    """
    choice = choice or Choice()
    if unknown := set(choice.splits) - {*shards.SPLITS, name_tables.UNKNOWN}:
        raise errors.InputError(f"there is no split {min(unknown)!r}; give some of {', '.join(shards.SPLITS)}")
    files = shards.find_shards(paths)
    store.require_new_or_empty(output)
    places = [file.path for file in files]
    sources = name_tables.find_tables(name_tables.SOURCES_FILE, paths, places)
    raw_labels = name_tables.find_tables(name_tables.RAW_LABELS_FILE, paths, places)
    with store.whole_directory(output) as folder:
        writer = _Writer(folder, choice, sources, raw_labels)
        with (folder / LABELS_FILE).open("w", encoding="utf-8", newline="") as file:
            name_tables.write_rows(file, [HEADER])
            with progress.progress("exporting", len(files), unit="shards") as advance:
                # Of the copies of an image the one that is evaluated on counts, as in ExampleGen.
                for shard in sorted(files, key=lambda shard: _split(shard) != shards.EVAL):
                    name_tables.write_rows(file, writer.write_shard(shard))
                    advance(1)
        writer.close()
    return Exported(dict(writer.by_class), writer.repeated, writer.failures)


def _split(shard: shards.File) -> str:
    return shards.split_of(shard.name, default=name_tables.UNKNOWN)


Tables = Mapping[str, Mapping[int, str] | None]
"""Names by number for each shard, by its path; None without a table."""


class _Numbers:
    """The tables of all shards as one, `names` by number; what has another name under a number gets its own."""

    def __init__(self, tables: Tables) -> None:
        self.names: dict[int, str] = {}
        self._unnamed: set[int] = set()
        for table in tables.values():
            self.names = {**(table or {}), **self.names}

    def number(self, number: int, name: str | None) -> int:
        """Returns the number in `names` of what is called `name`, or nothing, and has `number` in its shard."""
        if name is None and number not in self.names:
            self._unnamed.add(number)
            return number
        name = name or f"label {number}"
        if self.names.setdefault(number, name) == name:
            return number
        free = max({*self.names, *self._unnamed}) + 1
        number = next((other for other, known in self.names.items() if known == name), free)
        self.names[number] = name
        return number


class _Writer:
    """Writes the chosen images of one shard after another below `folder`."""

    def __init__(self, folder: Path, choice: Choice, sources: Tables, raw_labels: Tables) -> None:
        self.folder = folder
        self.splits = set(choice.splits)
        self.classes = {name.casefold() for name in choice.classes}
        self.institutions = {name.casefold() for name in choice.institutions}
        self.by_class: collections.Counter[str] = collections.Counter()
        self.failures: list[tuple[str, int, str]] = []
        self.repeated = 0
        self._ids: set[int] = set()
        self._taken: set[str] = {LABELS_FILE, ERRORS_FILE, name_tables.SOURCES_FILE, name_tables.RAW_LABELS_FILE}
        self._folders: dict[str, str] = {}
        self._tables = sources, raw_labels
        self._sources, self._raw_labels = _Numbers(sources), _Numbers(raw_labels)
        self._seen: dict[str, set[str]] = {"splits": set(), "classes": set(), "institutions": set()}

    def write_shard(self, shard: shards.File) -> Iterator[Sequence[object]]:
        """Writes a shard's images and yields their rows of `labels.csv`."""
        split = _split(shard)
        self._seen["splits"].add(split)
        if self.splits and split not in self.splits:
            return
        sources, raw_names = (tables[shard.path] or {} for tables in self._tables)
        with store.open_raw(shard.path) as file:
            for record in tfrecord.read_records(file):
                try:
                    image = _read_image(record, sources)
                except errors.InputError as error:
                    self.failures.append((shard.name, record.index, str(error)))
                    continue
                if self._is_chosen(image):
                    path = self._write_image(image)
                    raw = self._raw_labels.number(image.label_raw, raw_names.get(image.label_raw))
                    source = self._sources.number(image.source, image.institution)
                    yield path, image.image_id, image.label, image.class_name, raw, source, image.plate, split

    def _is_chosen(self, image: _Image) -> bool:
        self._seen["classes"].add(image.class_name)
        self._seen["institutions"].add(image.institution)
        if self.classes and image.class_name.casefold() not in self.classes:
            return False
        if self.institutions and image.institution.casefold() not in self.institutions:
            return False
        is_new = image.image_id not in self._ids
        self.repeated += not is_new
        self._ids.add(image.image_id)
        return is_new

    def _write_image(self, image: _Image) -> str:
        """Returns the path below the folder, with `/`."""
        folder = self._class_folder(image.class_name)
        ending = ".png" if image_files.image_header(image.encoded).format == image_files.PNG else ".jpg"
        name = safe_name(image.filename, str(image.image_id))
        if not image_files.has_image_ending(name):
            name += ending
        path = f"{folder}/{name}"
        if _key(path) in self._taken:
            path = f"{folder}/{image.image_id}/{name}"
        self._taken.add(_key(path))
        self.by_class[image.class_name] += 1
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image.encoded)
        return path

    def _class_folder(self, class_name: str) -> str:
        if class_name not in self._folders:
            name = safe_name(class_name, "class")
            taken = {_key(folder) for folder in self._folders.values()} | self._taken
            number = 1
            while _key(name) in taken:
                number += 1
                name = f"{safe_name(class_name, 'class')}-{number}"
            self._folders[class_name] = name
        return self._folders[class_name]

    def close(self) -> None:
        """Writes the tables; raises `InputError` if no image was chosen."""
        if not self.by_class:
            seen = "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in self._seen.items() if names)
            raise errors.InputError(
                f"no image to export, {len(self.failures)} records that cannot be used; the set has {seen}"
            )
        has_raw = any(table is not None for table in self._tables[1].values())
        raw_labels = self._raw_labels.names if has_raw else None
        name_tables.write_tables(self.folder, self._sources.names, raw_labels=raw_labels)
        if self.failures:
            name_tables.write_csv(self.folder / ERRORS_FILE, ERRORS_HEADER, self.failures)


def _read_image(record: tfrecord.Record | tfrecord.Rest, sources: Mapping[int, str]) -> _Image:
    """Raises `InputError`, with the reason, for what cannot be used."""
    if isinstance(record, tfrecord.Rest):
        raise errors.InputError(record.detail)
    if not record.intact:
        raise errors.InputError(contract.REASONS[contract.BAD_CHECKSUM])
    features = contract.parse_example(record.data).features.feature
    encoded, label, image_id = (
        _value(features, name, kind)
        for name, kind in ((contract.ENCODED, bytes), (contract.LABEL, int), (contract.IMAGE_ID, int))
    )
    with errors.translated(errors.InputError, "not a JPEG or PNG: {}", ValueError):
        image_files.image_header(encoded)
    source = _value(features, contract.SOURCE, int, 0)
    return _Image(
        encoded,
        _text(features, contract.FILENAME),
        image_id,
        label,
        _text(features, contract.LABEL_TEXT) or f"label {label}",
        _value(features, contract.LABEL_RAW, int, label),
        source,
        _text(features, contract.INSTITUTION) or sources.get(source, f"source {source}"),
        contract.plate_of(features),
    )


def _value(features: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    values = contract.feature_values(features[name])[1] if name in features else ()
    if len(values) == 1 and isinstance(values[0], kind):
        return values[0]
    if default is None:
        raise errors.InputError(f"no {name}, or not a single value of it")
    return default


def _text(features: Mapping[str, Any], name: str) -> str:
    return str(_value(features, name, bytes, b"").decode("utf-8", "replace"))


def _key(path: str) -> str:
    """Returns the path as file systems compare it that ignore case and the composition of letters."""
    return unicodedata.normalize("NFC", path).casefold()


def safe_name(name: str, default: str) -> str:
    """Returns the base name of a path as a name that Linux, macOS and Windows accept and that is not hidden.

    `default` replaces what is left empty; the ending of a long name stays.
    """
    base = re.split(r"[/\\]", name)[-1]
    printable = "".join(letter if letter.isprintable() else "_" for letter in base)
    safe = _FORBIDDEN.sub("_", printable).rstrip(". ").lstrip(" ")
    if not safe.strip("."):
        return default
    if safe.startswith(".") or _RESERVED.fullmatch(safe):
        safe = f"_{safe}"
    stem, dot, ending = safe.rpartition(".")
    if len(safe.encode()) > _LONGEST_NAME and dot and len(ending) <= 5:
        return f"{_shortened(stem, _LONGEST_NAME - len(ending) - 1)}.{ending}"
    return _shortened(safe, _LONGEST_NAME)


def _shortened(text: str, length: int) -> str:
    """Returns the beginning of a text, of at most `length` bytes."""
    return text.encode()[:length].decode(errors="ignore").rstrip(". ")
