"""Reading files alike on this machine and in a bucket; Beam is imported for the latter alone."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, cast


def is_remote(path: str) -> bool:
    """Tells whether `path` is a URI such as `gs://bucket/folder`."""
    return "://" in path


def open_raw(path: str) -> BinaryIO:
    """Opens a file for reading its bytes as they are, whatever its name ends in."""
    if not is_remote(path):
        return Path(path).open("rb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def read_bytes(path: str) -> bytes:
    """Returns a whole file."""
    with open_raw(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Tells whether a file is there."""
    if not is_remote(path):
        return Path(path).exists()
    from apache_beam.io.filesystems import FileSystems

    return bool(FileSystems.exists(path))
