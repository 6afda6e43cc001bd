"""Reading files alike on this machine and in a bucket; Beam is imported for stores other than `gs://` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, cast

from marco_data import object_store
from marco_model.errors import InputError


def is_remote(path: str) -> bool:
    """Tells whether `path` is a URI such as `gs://bucket/folder`."""
    return "://" in path


def absolute(path: str) -> str:
    """Returns a path of this machine from its root on, whatever the working directory is later; a URI as it is."""
    return path if is_remote(path) else str(Path(path).resolve())


def open_raw(path: str) -> BinaryIO:
    """Opens a file for reading its bytes as they are, whatever its name ends in."""
    if object_store.is_object(path):
        return object_store.open_object(path)
    if not is_remote(path):
        return Path(path).open("rb")
    from apache_beam.io.filesystem import CompressionTypes

    return cast(BinaryIO, file_systems(path).open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def read_bytes(path: str) -> bytes:
    """Returns a whole file."""
    with open_raw(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Tells whether a file is there."""
    if object_store.is_object(path):
        return object_store.exists(path)
    if not is_remote(path):
        return Path(path).exists()
    return bool(file_systems(path).exists(path))


def file_systems(path: str) -> Any:
    """Returns Beam's file systems; raises `InputError` where they can't read the scheme of the URI `path`."""
    from apache_beam.io.filesystems import FileSystems

    scheme = path.partition("://")[0]
    try:
        FileSystems.get_filesystem(path)
        known = scheme != "s3"  # Beam's needs boto3, which nothing else here does, and options of its own.
    except ValueError:
        known = False
    if not known:
        raise InputError(f"{path!r}: {scheme}:// cannot be read; give gs://BUCKET/FOLDER, or a folder, here or mounted")
    return FileSystems
