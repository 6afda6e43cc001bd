"""Finding the TFRecord shards of a set, on disk or in a bucket, and what their names tell."""

from __future__ import annotations

import collections
import dataclasses
import glob
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from marco_data.image_files import drop_place
from marco_data.name_tables import RAW_LABELS_FILE as RAW_LABELS
from marco_data.name_tables import SOURCES_FILE as SOURCES
from marco_data.name_tables import table_path
from marco_data.overlay import overlay_fingerprint
from marco_model import store
from marco_model.errors import InputError
from marco_model.store import file_systems, is_remote, read_bytes

TRAIN = "train"
EVAL = "eval"

_SHARD = re.compile(r".+-\d+-of-\d+(\.[A-Za-z]+)*|.+\.tfrecords?(\.(gz|zlib))?", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")
_SPLITS = (
    (re.compile(r"(split-)?train", re.IGNORECASE), TRAIN),
    (re.compile(r"(split-)?(test|eval|val)", re.IGNORECASE), EVAL),
)


@dataclasses.dataclass(frozen=True)
class File:
    """A file found: where, its name below the folder asked for, bytes, and when it last changed (seconds)."""

    path: str
    name: str
    size: int
    modified: float


def find_shards(paths: Iterable[str]) -> list[File]:
    """Returns the shards of files, folders (searched through) and globs, local or `gs://`, in the order of their names.

    A name is that below the folder given, or the whole path where two would be alike. Raises `InputError` where a path
    does not exist or has no shard.
    """
    found: dict[str, File] = {}
    for path in paths:
        files = [file for file in list_files(path) if _SHARD.fullmatch(PurePosixPath(file.name).name)]
        if not files:
            raise InputError(
                f"no TFRecord shards at {path!r}; expected files named like train-00001-of-00010, in it or below it: "
                "make them of images with marco data import"
            )
        found.update((file.path, file) for file in files)
    times = collections.Counter(file.name for file in found.values())
    shards = [dataclasses.replace(file, name=file.path) if times[file.name] > 1 else file for file in found.values()]
    return sorted(shards, key=lambda file: (file.name, file.path))


def list_files(path: str) -> list[File]:
    """Returns every file that a file, folder or glob stands for; raises `InputError` if there is none."""
    files = _remote_files(path) if is_remote(path) else _local_files(path)
    if not files:
        raise InputError(f"{path!r} does not exist or is empty; give a folder, a file or a glob of shards")
    return files


def split_of(name: str) -> str:
    """Returns `train` or `eval`, told by a shard's name, else by the nearest folder's; `InputError` if by none."""
    for part in reversed(PurePosixPath(name.replace("://", "/")).parts):
        for pattern, split in _SPLITS:
            if pattern.match(part):
                return split
    raise InputError(
        f"the name of shard {name!r} tells no split; name it train*, test*, eval* or val*, or split by hash"
    )


def fingerprint(paths: Sequence[str], overlay: str = "") -> str:
    """Returns a short hash of the names, sizes and change times of all files at `paths`.

    The tables that name institutions and raw labels are told by their content, wherever they are found; so is the
    file `overlay`, if one is given. Raises `InputError` where one of them is not there.
    """
    digest = hashlib.blake2b(digest_size=16)
    files = sorted((file for path in paths for file in list_files(path)), key=lambda file: (file.name, file.path))
    for name in (SOURCES, RAW_LABELS):
        found = table_path(name, paths, [file.path for file in files])
        content = b"" if found is None else read_bytes(found)
        digest.update(f"{name}\0{len(content)}\n".encode() + content)
    for file in files:
        digest.update(f"{file.name}\0{file.size}\0{file.modified:.6f}\n".encode())
    if overlay:
        digest.update(f"overlay\0{overlay_fingerprint(overlay)}\n".encode())
    return digest.hexdigest()


def _local_files(path: str) -> list[File]:
    root = Path(path)
    if root.is_dir():
        found = [file for file in root.rglob("*") if file.is_file()]
    elif root.is_file():
        root, found = root.parent, [root]
    else:
        root = Path(_fixed_part(path))
        pattern = str(Path(path).relative_to(root))
        found = [file for file in root.glob(pattern) if file.is_file()] if glob.has_magic(path) else []
    files = []
    for file in found:
        status = file.stat()
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        files.append(File(str(file), name, status.st_size, status.st_mtime))
    return files


def _fixed_part(pattern: str) -> str:
    """Returns the folders of a glob before its first wildcard."""
    return str(Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts)))


def _remote_files(path: str) -> list[File]:
    root = path.rstrip("/")
    magic = glob.has_magic(root)
    prefix = _magic_prefix(root) if magic else root
    found = _objects(root, magic) if store.is_object(path) else _matches(root, magic)
    return [
        File(uri, uri.removeprefix(prefix).lstrip("/") or PurePosixPath(uri).name, size, modified)
        for uri, size, modified in found
        if not uri.endswith("/")
    ]


def _objects(root: str, magic: bool) -> list[tuple[str, int, float]]:
    """Returns URI, bytes and change time of the objects that a pattern, a name or a folder of a bucket stands for."""
    from apache_beam.io.filesystem import FileSystem

    found = store.list_objects(_MAGIC.split(root, maxsplit=1)[0])
    if magic:
        pattern = re.compile(FileSystem.translate_pattern(root))
        found = [one for one in found if pattern.fullmatch(one.uri)]
    else:
        found = [one for one in found if one.uri == root] or [one for one in found if one.uri.startswith(f"{root}/")]
    return [(one.uri, one.size, one.modified) for one in found]


def _matches(root: str, magic: bool) -> list[tuple[str, int, float]]:
    """Returns the same of another store that Beam knows."""
    from apache_beam.io.filesystem import BeamIOError

    systems = file_systems(root)
    try:
        found = [entry for result in systems.match([root]) for entry in result.metadata_list]
        if not found and not magic:
            found = [entry for result in systems.match([f"{root}/**"]) for entry in result.metadata_list]
    except BeamIOError as error:
        raise InputError(f"{root!r} cannot be listed: {str(error).splitlines()[0]}") from error
    return [(entry.path, entry.size_in_bytes, float(entry.last_updated_in_seconds or 0)) for entry in found]


def _magic_prefix(pattern: str) -> str:
    return _MAGIC.split(pattern, maxsplit=1)[0].rsplit("/", 1)[0]


SPLITS = (TRAIN, EVAL)


def hashed_split(filename: str, image_id: int, eval_share: float) -> str:
    """Returns `train` or `eval` by a hash of the plate, so that drops seen together stay together.

    Where the file name tells no plate the image id is hashed instead. The draw depends on nothing else: images added
    later do not move those already placed.
    """
    plate = drop_place(filename).plate
    return EVAL if hashed_draw(f"plate {plate}" if plate else f"image {image_id}") < eval_share else TRAIN


def hashed_draw(key: str) -> float:
    """Returns a number in [0, 1), uniform over keys, always the same for the same key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
