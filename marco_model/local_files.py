"""Files and folders of this machine that appear only when they are complete, and locks.

What is not complete lies aside under a hidden unique name, locked by the process that writes it. The system takes the
lock from a process that ends, however it ends, so that a later one knows what to delete.
"""

import contextlib
import ctypes
import errno
import functools
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from marco_model.errors import InputError, end_if_stopped

LOCK_FILE = ".marco.lock"
"""In a folder that one process at a time writes into; see `sole_writer`."""
_ASIDE = re.compile(r"\..+\.[0-9a-f]{12}\.partial")


@contextlib.contextmanager
def whole_file(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a new file of this machine that appears at `path`, on the disk, when the block ends without an error.

    It is written beside `path`, or the target of a link there, under a unique name, so that two processes never write
    into one file, and then renamed. Missing folders are made. An error in the block leaves nothing; what a killed
    process leaves is deleted by the first file that another one writes into the folder. Devices and pipes are written
    directly. `mode`: `w` for UTF-8 text whose line ends are written as given, or `wb`.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    if is_stream(path):
        with Path(path).open(mode.replace("w", "a"), **text) as file:  # type: ignore[call-overload]
            yield file
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers_once(path.parent)
    with _aside(path, functools.partial(Path.touch, exist_ok=False)) as aside:
        with aside.open(mode, **text) as file:  # type: ignore[call-overload]
            yield file
        end_if_stopped()
        sync(aside)
        aside.replace(path)
    sync(path.parent)


def refuse_inputs(outputs: Iterable[tuple[str, Path]], inputs: Iterable[str | Path]) -> None:
    """Raises `InputError` if a file to write is one of `inputs`, also under another name or through a link.

    `outputs`: what the message calls a path, such as `--output`, and the path. Devices and pipes may be both.
    """
    existing: dict[tuple[int, int] | None, str] = {
        file: f"{name} {path}" for name, path in outputs if (file := _file_number(path)) and not is_stream(path)
    }
    for path in inputs if existing else ():
        if output := existing.get(_file_number(path)):
            raise InputError(f"{output} is an input, {path}, and would replace it; give another name")


def _file_number(path: str | Path) -> tuple[int, int] | None:
    """Returns what is the same for a file under all its names; None if there is no such file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def is_stream(path: str | Path) -> bool:
    """Returns whether there is a device or a pipe at `path`, such as `/dev/stdout`, which no file may replace."""
    special = Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir()
    return special or str(path).startswith(("/dev/fd/", "/dev/std", "/proc/"))


@contextlib.contextmanager
def whole_directory(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yields an empty folder that is renamed to `path` when the block ends without an error, and is deleted otherwise.

    Its content is then on the disk. A folder at `path` that is not empty at the end is replaced if `replace`; otherwise
    `InputError` is raised. What killed processes left beside it is deleted first. A mount point and the working
    directory keep their place: the content is renamed into them.
    """
    path = Path(os.path.realpath(path))
    parent = folder_of_aside(path)
    parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers(parent)
    with _aside(parent / path.name, Path.mkdir) as aside:
        yield aside
        end_if_stopped()
        _sync_tree(aside)
        try:
            if parent == path:
                _fill(path, aside, replace)
            elif replace and path.is_dir():
                _exchange(aside, path)
            else:
                if sys.platform == "win32" and path.is_dir():  # Nothing takes an empty folder's place there.
                    path.rmdir()
                aside.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            message = f"{str(path)!r} is not empty: another process has filled it meanwhile; give a new folder"
            raise InputError(message) from error
    sync(parent)


@contextlib.contextmanager
def folder_aside(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`, deleted afterwards, or by the next command if this one is killed."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_leftovers(path.parent)
    with _aside(path, Path.mkdir) as aside:
        yield aside


def folder_of_aside(path: Path) -> Path:
    """Returns the folder in which `whole_directory(path)` writes until its content is complete."""
    path = Path(os.path.realpath(path))
    fixed = path.is_dir() and (path.is_mount() or path.samefile(os.curdir))
    return path if fixed else path.parent


def _fill(folder: Path, aside: Path, replace: bool) -> None:
    if _names(folder) and not replace:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder))
    for child in sorted(aside.iterdir()):
        target = folder / child.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        child.replace(target)


def _exchange(aside: Path, path: Path) -> None:
    """Puts `aside` in the place of `path` at once where the system can; elsewhere `path` is missing for a moment."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        names = os.fsencode(aside), os.fsencode(path)
        if ctypes.CDLL(None).renameat2(-100, names[0], -100, names[1], 2) == 0:  # AT_FDCWD, RENAME_EXCHANGE
            return
    old = aside.with_suffix(".replaced")
    path.rename(old)
    aside.rename(path)
    shutil.rmtree(old)


@contextlib.contextmanager
def _aside(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Makes a file or folder beside `path`, keeps it locked in the block and deletes what is left of it then."""
    lock = None
    try:
        while True:
            aside = path.with_name(f".{path.name or 'root'}.{uuid.uuid4().hex[:12]}.partial")
            make(aside)
            lock = lock_path(aside, seconds=5.0)
            if aside.exists():
                break
            # Another process took it for a leftover before it was locked.
            if lock is not None:
                os.close(lock)
        yield aside
    finally:
        _delete(aside)
        if lock is not None:
            os.close(lock)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _delete_leftovers(folder: Path) -> None:
    """Deletes what processes that are gone left aside in `folder`."""
    for path in folder.iterdir():
        if _ASIDE.fullmatch(path.name):
            with contextlib.suppress(OSError):
                if (lock := lock_path(path)) is not None:
                    _delete(path)
                    os.close(lock)


_delete_leftovers_once = functools.cache(_delete_leftovers)


def _names(folder: Path) -> set[str]:
    """Returns the names in a folder, without what belongs to a process that writes there."""
    return {path.name for path in folder.iterdir() if path.name != LOCK_FILE and not _ASIDE.fullmatch(path.name)}


def lock_path(path: Path, seconds: float = 0.0) -> int | None:
    """Locks a file or folder until the descriptor that it returns is closed or the process ends.

    Returns None where that cannot be locked. Raises `BlockingIOError` if it is locked already, for so many `seconds`.
    """
    if sys.platform == "win32":  # No folder can be opened there.
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    import fcntl

    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                os.close(descriptor)
                return None
            if time.monotonic() >= until:
                os.close(descriptor)
                raise
        time.sleep(0.05)


def open_locked(path: Path) -> IO[bytes] | None:
    """Opens a file to read and append that no other process has open by this function; returns None if one has.

    It has no buffer, whose rest a full disk would refuse again when the file is closed.
    """
    while True:
        file = path.open("a+b", buffering=0)
        if not _lock(file):
            file.close()
            return None
        # The process that had it may have renamed it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _lock(file: IO[bytes]) -> bool:
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 30)  # Beyond the content, which others may read.
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # A file system without locks.
        pass
    return True


@contextlib.contextmanager
def sole_writer(folder: Path, seconds: float = 0.0) -> Iterator[None]:
    """Makes a folder, if missing, that other processes leave alone during the block.

    Raises `InputError` if one still writes into it after so many `seconds`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, lock = folder / LOCK_FILE, None
    while True:
        path.touch()
        try:
            lock = lock_path(path, seconds)
        except BlockingIOError:
            raise InputError(
                f"another process writes into {folder}; wait until it ends, or give another place"
            ) from None
        if path.exists() and (lock is None or os.path.samestat(os.fstat(lock), path.stat())):
            break
        # The process that had it deleted it meanwhile.
        if lock is not None:
            os.close(lock)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def require_new_or_empty(folder: Path, but: Sequence[str] = ()) -> None:
    """Raises `InputError` for a folder with other files than those named in `but`, and for a file."""
    if folder.exists() and (not folder.is_dir() or _names(folder) - {*but}):
        raise InputError(f"{str(folder)!r} is not empty; give a new folder")


def _sync_tree(folder: Path) -> None:
    # Several at a time: the file system then writes its journal for all of them together.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sync, [*folder.rglob("*"), folder]))


def sync(path: Path) -> None:
    """Returns when a file's content, or a folder's list of names, is on the disk; without effect on Windows."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
