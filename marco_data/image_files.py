"""The files below folders, and the image files of drops among them: their encoded bytes and headers.

Scoring, imports, sets of shards and monitoring find their files here. Linked folders are entered, but each folder and
each file is visited once, whatever it is called. Hidden folders and the copies that storage keeps (snapshots, recycle
bins, thumbnails) are left out.
"""

import collections
import contextlib
import dataclasses
import fnmatch
import glob
import itertools
import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from marco_model import pictures, pixels, png
from marco_model.errors import InputError

JPEG, PNG = "JPEG", "PNG"

ENDINGS: tuple[str, ...] = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp")
"""Endings of image files, matched without regard to case."""

_PNG_START = png.SIGNATURE + b"\x00\x00\x00\x0dIHDR"
_JPEG_START = b"\xff\xd8\xff"

_COPIES = re.compile(
    r"#recycle|#snapshot|\$recycle\.bin|@__thumb|@eadir|@recently-snapshot|@recycle|@tmp|__macosx|lost\+found|recycler|"
    r"system volume information|~snapshot",
    re.IGNORECASE,
)
"""Folders that Windows, macOS, Synology, QNAP and NetApp keep beside the files."""

_MOST_ENDINGS = 8


def is_left_out(name: str) -> bool:
    """Returns whether a file or folder of this base name is hidden, or a folder in which storage keeps copies."""
    return name.startswith(".") or bool(_COPIES.fullmatch(name))


def is_left_out_below(name: str) -> bool:
    """Returns whether any part of a relative path is left out."""
    return any(is_left_out(part) for part in PurePosixPath(name).parts)


@dataclasses.dataclass
class Walk:
    """The files below some paths, in the order of the paths and, below a folder, of the names.

    `unreadable`: why a folder or link among `files` cannot be read. `passed_over`: how many files have an ending, such
    as `.jp2`, that is not looked for. `left_out`: the names of folders with hidden files or copies.
    """

    files: list[Path] = dataclasses.field(default_factory=list)
    unreadable: dict[Path, str] = dataclasses.field(default_factory=dict)
    passed_over: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def summary(self) -> str:
        """Returns `passed over: 12 .jp2, 3 without ending; left out: @eaDir`; empty if there is neither."""
        common = [f"{count:,} {ending}" for ending, count in self.passed_over.most_common(_MOST_ENDINGS)]
        if rest := self.passed_over.total() - sum(count for _, count in self.passed_over.most_common(_MOST_ENDINGS)):
            common.append(f"{rest:,} others")
        parts = [f"passed over: {', '.join(common)}"] if common else []
        if self.left_out:
            parts.append(f"left out, hidden or copies: {', '.join(sorted(self.left_out))}")
        return "; ".join(parts)


def walk(paths: Iterable[str | Path], is_wanted: Callable[[str], bool] = lambda name: True) -> Walk:
    """Returns the files among `paths`, whatever their names, and those below folders whose base name `is_wanted`.

    Of a file with several names, a path that is given counts first and a link last. A link to a folder above itself is
    ignored. Raises `InputError` for a path that does not exist, and for an empty one, which an unset variable gives.
    """
    paths = list(paths)
    if "" in paths:  # Else it would be the working directory.
        raise InputError("a path is empty (''); give a file or a folder, or . for the working directory")
    return _Walker(is_wanted).walk([Path(path) for path in paths])


class _Walker:
    def __init__(self, is_wanted: Callable[[str], bool]) -> None:
        self.is_wanted = is_wanted
        self.result = Walk()
        self.seen: set[object] = set()
        self.links: collections.deque[tuple[list[Path], Path]] = collections.deque()

    def walk(self, paths: list[Path]) -> Walk:
        by_path: list[list[Path]] = []
        for path in paths:
            by_path.append([])
            try:
                is_folder = stat.S_ISDIR(path.stat().st_mode)
            except FileNotFoundError:
                raise InputError(f"no such file or folder: {path}") from None
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}") from None
            if is_folder:
                self.enter(by_path[-1], path)
            else:
                self.add(by_path[-1], path)
        while self.links:
            self.follow(*self.links.popleft())
        self.result.files = [path for files in by_path for path in sorted(files)]
        return self.result

    def enter(self, files: list[Path], root: Path) -> None:
        """Adds the files below a folder; links are kept for later, so that real names count first."""
        folders = [root]
        while folders:
            folder = folders.pop()
            try:
                identity = _identity(folder)
                if identity in self.seen:
                    continue
                self.seen.add(identity)
                with os.scandir(folder) as scan:
                    entries = list(scan)
            except OSError as error:
                self.refuse(files, folder, error)
                continue
            for entry in entries:
                path = Path(entry.path)
                if is_left_out(entry.name):
                    self.result.left_out.update([entry.name] if entry.is_dir() else [])
                elif entry.is_symlink():
                    self.links.append((files, path))
                elif entry.is_dir():
                    folders.append(path)
                elif not entry.is_file():
                    self.result.passed_over["not a file"] += 1
                elif self.wants(entry.name):
                    self.add(files, path, (identity, entry.name))

    def wants(self, name: str) -> bool:
        is_wanted = self.is_wanted(name)
        if not is_wanted:
            ending = Path(name).suffix.lower()
            self.result.passed_over[ending if re.fullmatch(r"\.\w{1,10}", ending) else "without ending"] += 1
        return is_wanted

    def add(self, files: list[Path], path: Path, identity: object = None) -> None:
        if identity is None:
            real = Path(os.path.realpath(path))
            identity = (_identity(real.parent), real.name)
        if identity not in self.seen:
            self.seen.add(identity)
            files.append(path)

    def follow(self, files: list[Path], link: Path) -> None:
        try:
            mode = link.stat().st_mode
            if stat.S_ISDIR(mode):
                real, beside = Path(os.path.realpath(link)), Path(os.path.realpath(link.parent))
                if real not in (beside, *beside.parents):
                    self.enter(files, link)
            elif not stat.S_ISREG(mode):
                self.result.passed_over["not a file"] += 1
            elif self.wants(link.name):
                self.add(files, link)
        except OSError as error:
            self.refuse(files, link, error)

    def refuse(self, files: list[Path], path: Path, error: OSError) -> None:
        files.append(path)
        self.result.unreadable[path] = reason(path, error)


def reason(path: Path, error: OSError) -> str:
    """Returns why a path cannot be read, such as `cannot be read: Permission denied`, with the target of a link."""
    target = ""
    with contextlib.suppress(OSError):  # The name itself may be too long.
        target = f"; it links to {path.readlink()}" if path.is_symlink() else ""
    return f"cannot be read: {error.strerror}{target}"


def _identity(folder: Path) -> object:
    """Returns what is the same for a folder under all its names."""
    status = folder.stat()
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def expand(pattern: str) -> tuple[Path, Walk]:
    """Returns the folder before the first wildcard of a glob, and the files that it stands for.

    `**` stands for any folders, also none, but those that `walk` leaves out. Folders that cannot be read, in which a
    match may lie, and links whose target is gone are among the files, `unreadable`.
    """
    parts = Path(pattern).parts
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    root, rest = Path(*fixed), parts[len(fixed) :]
    if "**" not in rest:
        return root, _level_by_level(root, rest)
    if not root.is_dir():
        return root, Walk()
    listing = walk([root])
    listing.files = [
        path
        for path in listing.files
        if _matches(path.relative_to(root).parts, rest, is_folder=path in listing.unreadable)
    ]
    return root, listing


def _level_by_level(root: Path, parts: Sequence[str]) -> Walk:
    """Returns the files that a glob without `**` stands for: what `pathlib` finds, which hides what it cannot read."""
    unreadable: dict[Path, str] = {}
    paths = [root]
    for part in parts:
        paths = [path for folder in paths for path in _children(folder, part, unreadable)]
    files = []
    for path in paths:
        try:
            if stat.S_ISREG(path.stat().st_mode):
                files.append(path)
        except OSError as error:
            _note(path, error, unreadable)
    listing = walk(sorted(files))
    listing.unreadable.update(unreadable)
    listing.files = sorted([*listing.files, *unreadable])
    return listing


def _children(folder: Path, part: str, unreadable: dict[Path, str]) -> list[Path]:
    try:
        folder.stat()
        if not glob.has_magic(part):
            return [folder / part]
        with os.scandir(folder) as scan:
            return [folder / entry.name for entry in scan if fnmatch.fnmatch(entry.name, part)]
    except OSError as error:
        _note(folder, error, unreadable)
        return []


def _note(path: Path, error: OSError, unreadable: dict[Path, str]) -> None:
    """Notes why a path that a glob leads to cannot be read; that it does not exist, or is a file, is no reason."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)) or path.is_symlink():
        unreadable[path] = reason(path, error)


def _matches(parts: Sequence[str], pattern: Sequence[str], is_folder: bool = False) -> bool:
    """Returns whether a glob stands for a file; `is_folder`: for any file that may lie below a folder."""
    if is_folder and not parts:
        return True
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:], is_folder) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:], is_folder)


def as_text(path: object) -> str:
    """Returns a path as text that any file can hold: a byte of a name that is not UTF-8 shows as `\\xf6`."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def find_images(paths: Iterable[str | Path]) -> Walk:
    """Returns the files among `paths`, and the images in folders and their subfolders: see `walk`.

    Folders and links that cannot be read are among the files: `encoded_image` says why.
    """
    return walk(paths, has_image_ending)


def has_image_ending(name: str) -> bool:
    """Returns whether a file's name ends as an image's."""
    return name.lower().endswith(ENDINGS)


def is_image_below(name: str) -> bool:
    """Returns whether a path or URI, relative to its folder, is an image's that `find_images` would return."""
    return has_image_ending(name) and not is_left_out_below(name)


def encoded_image(path: str | Path, bits: int | None = None) -> bytes:
    """Returns an image file as JPEG or PNG bytes that hold its one picture, upright, with 8 bits per sample.

    `bits`: see `pictures.upright`, which makes the bytes. Raises `InputError`, without the path in its message, for a
    file that cannot be read and for what `pictures.upright` refuses.
    """
    return pictures.upright(read_file(Path(path)), bits)


def read_file(path: Path) -> bytes:
    """Returns the bytes of an image file; raises `InputError`, without the path, if they are none or too many."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            os.scandir(path).close()
        elif not stat.S_ISREG(status.st_mode):
            raise InputError("not a regular file; a pipe or a device may have no end")
        with path.open("rb") as file:
            encoded = file.read(pixels.MAX_BYTES + 1)
        if len(encoded) > pixels.MAX_BYTES:
            size = max(status.st_size, len(encoded))
            raise InputError(f"{size:,} bytes are more than the {pixels.MAX_BYTES:,} accepted")
    except OSError as error:
        raise InputError(reason(path, error)) from None
    if not encoded:
        raise InputError("the file is empty")
    return encoded


class ImageHeader(NamedTuple):
    """Format (`JPEG` or `PNG`), size in pixels, and how many times the decoder passes over them."""

    format: str
    height: int
    width: int
    scans: int = 1


def image_header(encoded: bytes) -> ImageHeader:
    """Returns what the decoder will find in a JPEG's or PNG's header; raises `ValueError` if it finds neither.

    Raises `pixels.TooManyScans` for a JPEG that would take too long to decode.
    """
    if encoded.startswith(_PNG_START) and len(encoded) >= 24:
        width, height = struct.unpack_from(">II", encoded, 16)
        header = ImageHeader(PNG, height, width)
    elif encoded.startswith(_JPEG_START):
        jpeg = pixels.jpeg_header(encoded)
        header = ImageHeader(JPEG, jpeg.height, jpeg.width, jpeg.scans)
    else:
        raise ValueError(f"starts with {encoded[:8].hex(' ') or 'nothing'}")
    if not header.height or not header.width:
        raise ValueError(f"a {header.format} of {header.width}x{header.height} pixels")
    return header
