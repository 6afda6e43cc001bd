"""Finds images in shards and folders, names their imagers, and reads their encoded bytes."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from marco_data import contract
from marco_data.image_files import ENDINGS, MAX_PIXELS, as_text, encoded_image
from marco_data.name_tables import SOURCES_FILE, UNKNOWN, find_table, imager_of
from marco_data.shards import File, find_shards, list_files
from marco_data.tfrecord import Record, read_records
from marco_model.errors import InputError
from marco_model.store import is_remote, open_raw, read_bytes

ANY = "*"


@dataclasses.dataclass(frozen=True)
class Naming:
    """The rules, the first that fits counting.

    Attributes:
        rules: pairs of a pattern (`*`, `?`, `[…]`; matches the path below the folder given) and the imager's name.
        institution: whose file names tell the imager (docs/data.md), for files; records name their own.
    """

    rules: tuple[tuple[str, str], ...] = ()
    institution: str = ""

    def of_file(self, name: str) -> str:
        """Returns the imager of the file `name`, a path below the folder given, or `unknown`."""
        return self._by_rule(name) or imager_name(self.institution, self._by_name(name, self.institution))

    def of_record(self, name: str, institution: str, imager: str) -> str:
        """Returns the imager of a record whose image was called `name`; `imager` may be empty."""
        return self._by_rule(name) or imager_name(institution, imager or self._by_name(name, institution))

    def _by_rule(self, name: str) -> str:
        return next((imager for pattern, imager in self.rules if fnmatch.fnmatchcase(name, pattern)), "")

    def _by_name(self, name: str, institution: str) -> str:
        return imager_of(institution, name.rsplit("/", 1)[-1])


def imager_name(institution: str, imager: str) -> str:
    """Returns `CSIRO / Rigaku Minstrel`: cameras of one make at two places are two imagers."""
    if imager in ("", UNKNOWN):
        return institution if institution and not institution.startswith("source ") else UNKNOWN
    return f"{institution} / {imager}" if institution else imager


def parse_told(rules: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Reads `NAME`, for every image, and `PATTERN=NAME`."""
    pairs = (rule.partition("=") if "=" in rule else (ANY, "=", rule) for rule in rules)
    return tuple((pattern.strip(), name.strip()) for pattern, _, name in pairs)


_A_FILE = -1


class Found(NamedTuple):
    """A shard or an image file, and the name by which reports call it.

    `path`: bytes as `os.fsencode` gives, since Beam takes text that is UTF-8 alone, and no name needs to be.
    """

    path: bytes
    name: str
    is_shard: bool


class Candidate(NamedTuple):
    """One image that may be measured; the sample is those of the lowest `priority`, a number drawn from its name."""

    priority: int
    path: bytes
    index: int  # type: ignore[assignment]  # Hides tuple.index, which nothing here calls.
    imager: str
    name: str


def find_images(paths: Sequence[str], days: float | None = None) -> list[Found]:
    """Returns the shards and images of files, folders and globs, local or `gs://`.

    A folder that holds images is taken for one of images. `days`: only files that changed so many days ago at most.
    Raises InputError where a path has neither.
    """
    files_by_path: dict[str, Found] = {}
    since = time.time() - days * 86400 if days is not None else float("-inf")
    for path in paths:
        listed = [file for file in list_files(path) if _is_image(file.name)]
        is_shard = not listed
        listed = listed or _shards(path)
        files_by_path.update(
            (file.path, Found(os.fsencode(file.path), as_text(file.name), is_shard))
            for file in listed
            if file.modified >= since
        )
    return sorted(files_by_path.values(), key=lambda file: (file.name, file.path))


def _shards(path: str) -> list[File]:
    try:
        return find_shards([path])
    except InputError as error:
        raise InputError(f"no images and {error}" if str(error).startswith("no TFRecord") else str(error)) from None


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in ENDINGS and not PurePosixPath(name).name.startswith(".")


def institutions(paths: Sequence[str], found: Sequence[Found]) -> Mapping[int, str] | None:
    """Returns the institutions of the `sources.csv` nearest to the shards among `found`, or None."""
    shards = [os.fsdecode(file.path) for file in found if file.is_shard]
    return find_table(SOURCES_FILE, paths, shards) if shards else None


def candidates(file: Found, naming: Naming, sources: Mapping[int, str] | None, seed: int) -> Iterator[Candidate]:
    """Yields the images of a file; damaged records are passed over, as ExampleGen's quarantine tells of them."""
    if not file.is_shard:
        yield Candidate(_priority(seed, file.name, _A_FILE), file.path, _A_FILE, naming.of_file(file.name), file.name)
        return
    for index, features in _records(file.path):
        name = _text(features, contract.FILENAME)
        institution = _text(features, contract.INSTITUTION)
        if not institution and sources and contract.SOURCE in features:
            institution = sources.get(features[contract.SOURCE].int64_list.value[0], "")
        imager = naming.of_record(name, institution, _text(features, contract.IMAGER))
        yield Candidate(_priority(seed, file.name, index), file.path, index, imager, name or f"{file.name}#{index}")


def encoded_images(path: bytes, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, bytes | str]]:
    """Yields the requested images of the file `path` as JPEG or PNG bytes, or the reason why one is missing."""
    by_index = {candidate.index: candidate for candidate in candidates}
    if _A_FILE in by_index:
        yield by_index[_A_FILE], _file(os.fsdecode(path))
        return
    for index, features in _records(path):
        if index in by_index:
            data = features[contract.ENCODED].bytes_list.value
            yield by_index[index], _within_limits(data[0]) if data else "has no image"


def _records(path: bytes) -> Iterator[tuple[int, Mapping]]:
    with open_raw(os.fsdecode(path)) as file:
        for record in read_records(file):
            if isinstance(record, Record) and record.intact:
                try:
                    yield record.index, contract.parse_example(record.data).features.feature
                except InputError:
                    continue


def _text(features: Mapping, name: str) -> str:
    values = features[name].bytes_list.value if name in features else ()
    return values[0].decode("utf-8", "replace") if values else ""


def _file(path: str) -> bytes | str:
    try:
        if not is_remote(path):
            return encoded_image(path)
        with tempfile.NamedTemporaryFile(suffix=PurePosixPath(path).suffix) as copy:
            Path(copy.name).write_bytes(read_bytes(path))
            return encoded_image(copy.name)
    except InputError as error:
        return str(error)


def _within_limits(data: bytes) -> bytes | str:
    """Refuses what would take all memory once decoded."""
    from marco_data.image_files import image_header

    try:
        header = image_header(data)
    except ValueError as error:
        return f"is not a JPEG or PNG: {error}"
    if header.height * header.width > MAX_PIXELS:
        return f"{header.width}x{header.height} pixels are more than the {MAX_PIXELS:,} accepted"
    return data


def _priority(seed: int, name: str, index: int) -> int:
    key = f"{seed}\0{name}\0{index}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big")
