"""What Beam's passes over images share: output files on this machine, on `gs://` or on another store, and the log.

A `Writer` is open while records are processed and its file appears when it is closed. Whole files are read and written
with `marco_model.store`; here are the operations on files and folders that it does not have.
"""

import contextlib
import logging
import uuid
from collections.abc import Iterator, Sequence
from typing import IO

from apache_beam.io import filesystem, filesystems

from marco_data.tfrecord import frame
from marco_model import store


def join(*parts: str) -> str:
    """Joins parts of a path or URI."""
    return str(filesystems.FileSystems.join(*parts))


def rename(pairs: Sequence[tuple[str, str]]) -> None:
    """Renames files; existing ones are replaced."""
    if pairs and store.is_object(pairs[0][0]):
        store.copy_objects(pairs)
        store.delete_objects([source for source, _ in pairs])
    elif pairs:
        filesystems.FileSystems.rename([source for source, _ in pairs], [target for _, target in pairs])


def delete_tree(path: str) -> None:
    """Deletes a folder with its content; a folder that does not exist is fine."""
    if store.is_object(path):
        store.delete_objects(store.objects_below(path))
    elif store.exists(path):
        filesystems.FileSystems.delete([path])


def copy_folder(source: str, target: str) -> None:
    """Copies the files of a folder without subfolders; a folder that does not exist is fine."""
    if store.is_object(source):
        store.copy_objects([(path, join(target, path.rsplit("/", 1)[1])) for path in store.objects_below(source)])
        return
    matches = filesystems.FileSystems.match([join(source, "*")])
    paths = [entry.path for match in matches for entry in match.metadata_list]
    if paths:
        make_folder(target)
        filesystems.FileSystems.copy(paths, [join(target, path.rsplit("/", 1)[1]) for path in paths])


def make_folder(path: str) -> None:
    """Makes a folder if the store has folders and this one does not exist."""
    if not store.is_object(path) and not store.exists(path):
        filesystems.FileSystems.mkdirs(path)


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

    On `gs://` the service ensures that. A local file is a `store.whole_file`; on other stores it is renamed at the end.
    """

    def __init__(self, path: str) -> None:
        self._path, self._aside = path, ""
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes]
        if store.is_object(path):
            self._file = store.create_object(path)
        elif not store.is_remote(path):
            self._file = self._stack.enter_context(store.whole_file(path, "wb"))
        else:
            self._aside = f"{path}.{uuid.uuid4().hex}.partial"
            uncompressed = filesystem.CompressionTypes.UNCOMPRESSED
            self._file = filesystems.FileSystems.create(self._aside, compression_type=uncompressed)

    def write(self, data: bytes) -> None:
        """Appends `data`."""
        with store.reaching(self._path):
            self._file.write(data)

    def close(self) -> None:
        """Completes the file, which then appears."""
        with store.reaching(self._path):
            self._file.close()
        self._stack.close()
        if self._aside:
            rename([(self._aside, self._path)])


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
