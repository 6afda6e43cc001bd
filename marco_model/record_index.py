"""Where each record of a set of TFRecord files begins, so that any of them can be read by itself.

The files are not compressed: JPEG and PNG do not get smaller, and a record of a compressed file cannot be reached
without all before it. What writes examples writes the index beside them, `index/Split-train.npz` for the files of
`Split-train`; other files are walked through from length to length once.

A frame is a length (uint64, little-endian), its checksum (4 bytes), the data and its checksum (4 bytes): TensorFlow,
`tensorflow/core/lib/io/record_writer.h`.
"""

import dataclasses
import os
import struct
from collections.abc import Mapping, Sequence

import numpy as np

from marco_model import errors, record_targets, store

_HEADER_BYTES, FRAME_BYTES = 12, 16


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """The records of `files`, file after file.

    `file`: int64 [records], the number of the file. `offset`: int64 [records], where the frame begins. `length`: int64
    [records], bytes of the data. `targets`: what is read of them beside image and class.
    """

    files: tuple[str, ...]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    targets: record_targets.Targets = record_targets.NONE

    def __len__(self) -> int:
        return len(self.offset)

    def select(self, chosen: np.ndarray) -> "RecordIndex":
        """Returns the index of some of the records, in their order; `chosen`: bool [records]."""
        columns = {name: getattr(self, name)[chosen] for name in ("file", "offset", "length")}
        return dataclasses.replace(self, **columns)


def index_path(folder: str) -> str:
    """Returns the path of the index of the files in `folder`, such as `…/Split-train`."""
    parent, _, name = folder.rstrip("/").rpartition("/")
    return f"{parent}/index/{name}.npz"


def write_index(folder: str, lengths: Mapping[str, Sequence[int]]) -> None:
    """Writes the index of the files in `folder`; `lengths`: bytes of the data of each record, by a file's base name."""
    arrays = {name: np.asarray(values, np.int64) for name, values in lengths.items()}
    store.write_bytes(index_path(folder), store.npz(arrays))


def read_index(files: Sequence[str]) -> RecordIndex:
    """Returns the index of the files, in the order of their names.

    Raises `InputError` if a file is missing, is compressed or is not a sequence of TFRecord frames.
    """
    files = sorted(files)
    known: dict[str, np.ndarray] = {}
    for folder in sorted({file.rpartition("/")[0] for file in files}):
        if store.exists(index_path(folder)):
            damaged = f"{index_path(folder)} is damaged ({{}}); remove it, and the files are read through"
            with errors.translated(errors.InputError, damaged, Exception):
                arrays = store.arrays(store.read_bytes(index_path(folder)))
                known |= {f"{folder}/{name}": lengths for name, lengths in arrays.items()}
    lengths = [known[file] if file in known else _walk(file) for file in files]
    ends = [np.cumsum(values + FRAME_BYTES) for values in lengths]
    return RecordIndex(
        files=tuple(files),
        file=np.repeat(np.arange(len(files), dtype=np.int64), [len(values) for values in lengths]),
        offset=np.concatenate([end - values - FRAME_BYTES for end, values in zip(ends, lengths, strict=True)]),
        length=np.concatenate(lengths),
    )


def _walk(file: str) -> np.ndarray:
    """Returns the length of each record of a file, int64 [records], of which only the lengths are read."""
    remedy = "give TFRecord files that are not compressed, as ExampleGen writes them"
    lengths: list[int] = []
    with errors.translated(errors.InputError, f"{file} cannot be read ({{}}); {remedy}", OSError):
        stream = store.open_raw(file)
    with stream:
        size = stream.seek(0, os.SEEK_END)
        place = 0
        while place < size:
            stream.seek(place)
            header = stream.read(_HEADER_BYTES)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == _HEADER_BYTES else size
            place += length + FRAME_BYTES
            if place > size:
                raise errors.InputError(f"{file} is not a TFRecord file from record {len(lengths)} on; {remedy}")
            lengths.append(length)
    return np.asarray(lengths, np.int64)
