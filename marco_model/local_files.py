"""Files and folders of this machine that appear only when they are complete, and locks on folders."""

import contextlib
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from marco_model.errors import InputError


@contextlib.contextmanager
def whole_file(path: str | Path, mode: str = "w", *, synced: bool = False) -> Iterator[IO[Any]]:
    """Opens a new file of this machine that appears at `path` only when the block ends without an error.

    It is written beside `path`, or the target of a link there, under a unique name, so that two processes never write
    into one file, and then renamed. Missing folders are made. An error in the block leaves nothing; a killed process
    leaves a hidden `.partial` file. Devices and pipes are written directly. `mode`: `w` for UTF-8 text whose line ends
    are written as given, or `wb`. `synced`: content and name are on the disk when the block is left.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    if is_stream(path):
        with Path(path).open(mode.replace("w", "a"), **text) as file:  # type: ignore[call-overload]
            yield file
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        with aside.open(mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]
            yield file
            if synced:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    if synced:
        sync(path.parent)


def is_stream(path: str | Path) -> bool:
    """Returns whether there is a device or a pipe at `path`, such as `/dev/stdout`, which no file may replace."""
    special = Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir()
    return special or str(path).startswith(("/dev/fd/", "/dev/std", "/proc/"))


@contextlib.contextmanager
def whole_directory(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yields an empty folder that is renamed to `path` when the block ends without an error, and is deleted otherwise.

    What killed processes left of earlier attempts at `path` is deleted first. A folder at `path` that is not empty at
    the end is deleted if `replace`; otherwise `OSError` is raised.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers(path)
    aside = _aside(path)
    # Locked before it gets its name, so that no other process takes it for a leftover.
    unlocked = aside.with_suffix(".new")
    unlocked.mkdir()
    lock = lock_folder(unlocked)
    unlocked.rename(aside)
    try:
        yield aside
        if replace and path.exists():
            shutil.rmtree(path)
        aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _delete_leftovers(path: Path) -> None:
    """Deletes the folders of earlier `whole_directory(path)` blocks whose processes are gone."""
    leftover = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{12}\.partial")
    for folder in path.parent.iterdir():
        if leftover.fullmatch(folder.name) and folder.is_dir() and (lock := lock_folder(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def lock_folder(folder: Path, seconds: float = 0.0) -> int | None:
    """Locks a folder until the descriptor that it returns is closed or the process ends.

    Returns None if the folder cannot be locked, or is locked by another process for so many `seconds`.
    """
    if sys.platform == "win32":  # No folder can be opened there.
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    import fcntl

    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError as error:
            if not isinstance(error, BlockingIOError) or time.monotonic() >= until:
                os.close(descriptor)
                return None
        time.sleep(0.05)


def require_new_or_empty(folder: Path) -> None:
    """Raises `InputError` for a folder that is not empty, and for a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{str(folder)!r} is not empty; give a new folder")


def sync(path: Path) -> None:
    """Returns when a file's content, or a folder's list of names, is on the disk; without effect on Windows."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
