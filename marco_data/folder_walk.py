"""The files below folders: what scoring, imports, sets of shards and monitoring read.

Linked folders are entered, but each folder and each file is visited once, whatever it is called. Hidden folders and
the copies that storage keeps (snapshots, recycle bins, thumbnails) are left out.
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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from marco_model import errors

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
        raise errors.InputError("a path is empty (''); give a file or a folder, or . for the working directory")
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
                raise errors.InputError(f"no such file or folder: {path}") from None
            except OSError as error:
                raise errors.InputError(f"{path} cannot be read: {error.strerror}") from None
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
