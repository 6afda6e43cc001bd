"""What Beam's passes over images share: output files on this machine or on `gs://`, and the log.

A `Writer` is open while records are processed and its file appears when it is closed. Whole files are read and written
with `marco_model.store`; here are the operations on files and folders that it does not have.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from marco_data.tfrecord import frame
from marco_model import store


def rename(pairs: Sequence[tuple[str, str]]) -> None:
    """Renames files; existing ones are replaced."""
    if pairs and store.is_object(pairs[0][0]):
        store.copy_objects(pairs)
        store.delete_objects([source for source, _ in pairs])
        return
    for source, target in pairs:
        Path(source).replace(target)


def delete_tree(path: str) -> None:
    """Deletes a folder with its content; a folder that does not exist is fine."""
    if store.is_object(path):
        store.delete_objects(store.objects_below(path))
    elif store.exists(path):
        shutil.rmtree(path)


def copy_folder(source: str, target: str) -> None:
    """Copies the files of a folder without subfolders; a folder that does not exist is fine."""
    if store.is_object(source):
        store.copy_objects([(path, f"{target}/{path.rpartition('/')[2]}") for path in store.objects_below(source)])
    elif store.exists(source):
        make_folder(target)
        for path in Path(source).iterdir():
            shutil.copyfile(path, Path(target, path.name))  # Without modes and times, which mounts may refuse to set.


def make_folder(path: str) -> None:
    """Makes a folder if the store has folders and this one does not exist."""
    if not store.is_object(path):
        Path(path).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def errors_raised_only() -> Iterator[None]:
    """Keeps Beam's log off stderr: the errors in it are raised too, so they would be shown twice.

    The level is put back at the end, because one process may run several steps whose logs are kept.
    """
    logger = logging.getLogger("apache_beam")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


class Writer:
    """A file that appears under its name only when closed; a second attempt replaces it.

    On `gs://` the service ensures that; a local file is a `store.whole_file`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes]
        if store.is_object(path):
            self._file = store.create_object(path)
        else:
            self._file = self._stack.enter_context(store.whole_file(store.local_path(path), "wb"))

    def write(self, data: bytes) -> None:
        """Appends `data`."""
        with store.reaching(self._path):
            self._file.write(data)

    def close(self) -> None:
        """Completes the file, which then appears."""
        with store.reaching(self._path):
            self._file.close()
        self._stack.close()


class RecordWriter(Writer):
    """A TFRecord file; `lengths` are the bytes of each record's data, as `marco_model.example_files` takes them."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.lengths: list[int] = []
        self.record_bytes = 0

    def write_record(self, data: bytes) -> None:
        """Appends a record."""
        self.write(frame(data))
        self.lengths.append(len(data))
        self.record_bytes += len(data)
