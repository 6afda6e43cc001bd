"""The TFRecord shards of a set, on disk or in a bucket: find, read and write them; their splits, and a fingerprint."""

import collections
import contextlib
import dataclasses
import glob
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from marco_data import contract, image_files, name_tables, overlay, places, tfrecord
from marco_model import errors, store

TRAIN, VALIDATION, EVAL = SPLITS = ("train", "validation", "eval")
"""What weights are learned from, what everything else is chosen by, and what is claimed is measured on."""

_SHARD = re.compile(r".+-\d+-of-\d+(\.[A-Za-z]+)*|.+\.tfrecords?(\.(gz|zlib))?", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")
_SPLITS = (
    (re.compile(r"(split-)?train", re.IGNORECASE), TRAIN),
    (re.compile(r"(split-)?val", re.IGNORECASE), VALIDATION),
    (re.compile(r"(split-)?(test|eval)", re.IGNORECASE), EVAL),
)


@dataclasses.dataclass(frozen=True)
class File:
    """A file: path or URI, name below the folder given, bytes, and time of the last change (seconds since 1970).

    `unreadable`: why this folder or link cannot be read; size and time are 0 then.
    """

    path: str
    name: str
    size: int
    modified: float
    unreadable: str = ""

    @property
    def real_path(self) -> str:
        """The same for all paths of a file."""
        return self.path if store.is_remote(self.path) else os.path.realpath(self.path)


def find_shards(paths: Iterable[str]) -> list[File]:
    """Returns the shards among files, folders (with subfolders) and globs, local or `gs://`, sorted by name.

    A name is relative to the folder given, or the whole path if two would be equal. A shard with several paths is
    listed once. Raises `InputError` if a path does not exist, has no shard, or has what cannot be read.
    """
    by_path: dict[str, File] = {}
    for path in paths:
        files = [file for file in _readable(path) if _SHARD.fullmatch(PurePosixPath(file.name).name)]
        if not files:
            raise errors.InputError(
                f"no TFRecord shards at {path!r}; expected files named like train-00001-of-00010, in it or below it: "
                "make them from images with marco data import"
            )
        for file in files:
            by_path.setdefault(file.real_path, file)
    times = collections.Counter(file.name for file in by_path.values())
    shards = [dataclasses.replace(file, name=file.path) if times[file.name] > 1 else file for file in by_path.values()]
    return sorted(shards, key=lambda file: (file.name, file.path))


def _readable(path: str) -> list[File]:
    files = list_files(path)
    if unreadable := [file for file in files if file.unreadable]:
        raise errors.InputError(
            f"{path!r} has {len(unreadable)} folders or links that cannot be read; the first, {unreadable[0].path!r}, "
            f"{unreadable[0].unreadable}; make them readable or remove them"
        )
    return files


def list_files(path: str) -> list[File]:
    """Returns every file that a file, folder or glob stands for; raises `InputError` without any."""
    files = _remote_files(path) if store.is_remote(path) else _local_files(path)
    if not files:
        raise errors.InputError(f"{path!r} does not exist or is empty; give a folder, a file or a glob of shards")
    return files


def split_of(name: str, default: str = "") -> str:
    """Returns the split by the name of a shard or its nearest folder, or `default`; raises `InputError` without any."""
    for part in reversed(PurePosixPath(name.replace("://", "/")).parts):
        for pattern, split in _SPLITS:
            if pattern.match(part):
                return split
    if default:
        return default
    raise errors.InputError(
        f"the name of shard {name!r} has no split; name it train*, test*, eval* or val*, or split by hash"
    )


def read_examples(path: str) -> Iterator[tuple[int, Mapping]]:
    """Yields position and features of each record of a shard; no features of a record, or a rest, that is damaged."""
    with store.open_raw(path) as file:
        for record in tfrecord.read_records(file):
            features: Mapping = {}
            if isinstance(record, tfrecord.Record) and record.intact:
                with contextlib.suppress(errors.InputError):
                    features = contract.parse_example(record.data).features.feature
            yield record.index, features


def refuse_damaged(paths: Iterable[str]) -> None:
    """Raises `InputError` that names the first of the files, which a step wrote, with a damaged record."""
    for path in paths:
        with store.open_raw(path) as file:
            for record in tfrecord.read_records(file):
                if isinstance(record, tfrecord.Rest) or not record.intact:
                    raise errors.InputError(
                        f"{path} is damaged at byte {record.offset:,}; delete its folder and run the same command, "
                        "which writes it again"
                    )


def write_shards(folder: Path, stem: str, records: Iterable[bytes], shard_records: int) -> int:
    """Writes `STEM-00001-of-…` with at most `shard_records` records each; returns how many records there are.

    The names contain the number of shards, so the shards are renamed at the end.
    """
    remaining, paths, count = iter(records), list[Path](), 0
    for first in remaining:
        paths.append(folder / f"{stem}.{len(paths)}")
        with paths[-1].open("wb") as file:
            for record in itertools.chain([first], itertools.islice(remaining, shard_records - 1)):
                file.write(tfrecord.frame(record))
                count += 1
    for number, path in enumerate(paths, 1):
        path.rename(folder / f"{stem}-{number:05d}-of-{len(paths):05d}")
    return count


def hashed_split(filename: str, image_id: int, eval_share: float, validation_share: float, plate: str = "") -> str:
    """Returns the split by a hash of the plate, so that drops of one plate stay together.

    `eval_share` is of all plates, `validation_share` of those that are not in the evaluation split. `plate`: the
    record's, before the one that the file name states. Without either, the image id is hashed instead. The draw depends
    on nothing else: adding images does not move others.
    """
    plate = plate or places.place_of(filename).plate
    key = f"plate {plate}" if plate else f"image {image_id}"
    if hashed_draw(key) < eval_share:
        return EVAL
    return VALIDATION if hashed_draw(f"validation {key}") < validation_share else TRAIN


def hashed_draw(key: str) -> float:
    """Returns a number in [0, 1), uniform over keys, always the same for the same key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64


def fingerprint(paths: Sequence[str], overlay_path: str = "") -> str:
    """Returns a short hash of the names, sizes and change times of all files at `paths`.

    The tables that name institutions and raw labels enter with their content, wherever they lie; so does the file
    `overlay_path`, if one is given. Raises `InputError` if a path does not exist.
    """
    digest = hashlib.blake2b(digest_size=16)
    files = sorted((file for path in paths for file in _readable(path)), key=lambda file: (file.name, file.path))
    for name in (name_tables.SOURCES_FILE, name_tables.RAW_LABELS_FILE):
        found = name_tables.table_paths(name, paths, [file.path for file in files]).values()
        for content in [store.read_bytes(path) for path in dict.fromkeys(found) if path] or [b""]:
            digest.update(f"{name}\0{len(content)}\n".encode() + content)
    for file in files:
        digest.update(f"{file.name}\0{file.size}\0{file.modified:.6f}\n".encode())
    if overlay_path:
        digest.update(f"overlay\0{overlay.overlay_fingerprint(overlay_path)}\n".encode())
    return digest.hexdigest()


def _local_files(path: str) -> list[File]:
    if not path:  # Else it would be the working directory.
        return []
    root = Path(path)
    if root.is_dir():
        listing = image_files.walk([root])
    elif root.is_file():
        root, listing = root.parent, image_files.Walk([root])
    elif glob.has_magic(path):
        root, listing = image_files.expand(path)
    else:
        return []
    files = []
    for file in listing.files:
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        if file in listing.unreadable:
            files.append(File(str(file), name, 0, 0, listing.unreadable[file]))
        else:
            status = file.stat()
            files.append(File(str(file), name, status.st_size, status.st_mtime))
    return files


def _remote_files(path: str) -> list[File]:
    if not store.is_object(path):
        store.local_path(path)  # Raises `InputError`, as for the file of any other store.
    from apache_beam.io.filesystem import FileSystem

    root = path.rstrip("/")
    beginning, *rest = _MAGIC.split(root, maxsplit=1)
    folder = beginning.rsplit("/", 1)[0] if rest else root
    objects = store.list_objects(beginning)
    for pattern in [root] if rest else [root, f"{root}/**"]:
        matches = re.compile(FileSystem.translate_pattern(pattern)).fullmatch
        if found := [item for item in objects if matches(item.uri)]:
            break
    files = [
        File(
            item.uri,
            item.uri.removeprefix(folder).lstrip("/") or PurePosixPath(item.uri).name,
            item.size,
            item.modified,
        )
        for item in found
        if not item.uri.endswith("/")
    ]
    return [file for file in files if not image_files.is_left_out_below(file.name)]
