"""Files of an ingest, on any file system that Beam knows, written aside and renamed."""

from __future__ import annotations

import contextlib
import functools
import uuid
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from marco_data.tfrecord import GZIP_WBITS, frame
from marco_model.store import SCHEME, copy_objects, create_object, delete_objects, exists, objects_below, reaching

_BUFFER_BYTES = 1 << 22


def write_bytes(path: str, data: bytes) -> None:
    """Writes a whole file."""
    writer = Writer(path)
    writer.write(data)
    writer.close()


def join(*parts: str) -> str:
    """Joins path parts as the file system of the first wants it."""
    return FileSystems.join(*parts)


def rename(pairs: Sequence[tuple[str, str]]) -> None:
    """Renames files, replacing what is there."""
    if pairs and pairs[0][0].startswith(SCHEME):
        copy_objects(pairs)
        delete_objects([source for source, _ in pairs])
    elif pairs:
        FileSystems.rename([source for source, _ in pairs], [target for _, target in pairs])


def delete_tree(path: str) -> None:
    """Deletes a folder and all in it; none there is fine."""
    if path.startswith(SCHEME):
        delete_objects(objects_below(path))
    elif exists(path):
        FileSystems.delete([path])


def copy_folder(source: str, target: str) -> None:
    """Copies the files of a folder that has no folders; none there is fine."""
    if source.startswith(SCHEME):
        found = objects_below(source)
        copy_objects([(path, join(target, path.rsplit("/", 1)[1])) for path in found])
        return
    found = [entry.path for result in FileSystems.match([join(source, "*")]) for entry in result.metadata_list]
    if found:
        make_folder(target)
        FileSystems.copy(found, [join(target, path.rsplit("/", 1)[1]) for path in found])


def make_folder(path: str) -> None:
    """Makes a folder, where the file system has such a thing."""
    if not path.startswith(SCHEME) and not exists(path):
        FileSystems.mkdirs(path)


class Writer:
    """A file that appears under its name only when closed; a second attempt at it replaces the first.

    An object of a bucket does so by itself, other files are written aside and renamed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._reaching: Callable[[], AbstractContextManager[None]]
        if path.startswith(SCHEME):
            self._aside = path
            self._file = create_object(path)
            self._reaching = functools.partial(reaching, path)
        else:
            self._aside = f"{path}.{uuid.uuid4().hex}.part"
            self._file = FileSystems.create(self._aside, compression_type=CompressionTypes.UNCOMPRESSED)
            self._reaching = contextlib.nullcontext

    def write(self, data: bytes) -> None:
        """Appends `data`."""
        with self._reaching():
            self._file.write(data)

    def close(self) -> None:
        """Ends the file and gives it its name."""
        with self._reaching():
            self._file.close()
        if self._aside != self._path:
            rename([(self._aside, self._path)])


class RecordWriter(Writer):
    """A gzip TFRecord file.

    Level 0, since JPEG and PNG don't get smaller: it costs a copy, where level 6 costs as much time as decoding.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._deflater = zlib.compressobj(0, zlib.DEFLATED, GZIP_WBITS)
        self.records = 0
        self.record_bytes = 0

    def write_record(self, data: bytes) -> None:
        """Appends one record."""
        self.write(self._deflater.compress(frame(data)))
        self.records += 1
        self.record_bytes += len(data)

    def close(self) -> None:
        """Ends the file and gives it its name."""
        self.write(self._deflater.flush())
        super().close()
