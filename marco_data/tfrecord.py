"""TFRecord framing that survives damage: a bad record costs that record, a bad length the rest of its shard.

A frame is a length (uint64), its masked CRC-32C (uint32), the data, and the data's masked CRC-32C, all little-endian
(TensorFlow, `tensorflow/core/lib/io/record_writer.h`). A shard may be compressed as a whole, with zlib or gzip; this is
recognized by its first bytes, never by its name. Offsets are those of the uncompressed stream.
"""

import dataclasses
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

LENGTH_BYTES = 12
FRAME_BYTES = 16
MAX_RECORD_BYTES = 1 << 27
CHUNK_BYTES = 1 << 20
MAX_RATIO = 100
"""Times its size to which a compressed shard may inflate, beyond one record. Images hardly compress a second time."""
GZIP_WBITS = 31
ZLIB_WBITS = 15

BAD_LENGTH = "bad_length"
TRUNCATED_SHARD = "truncated_shard"
BAD_COMPRESSION = "bad_compression"
REST_REASONS = (BAD_LENGTH, TRUNCATED_SHARD, BAD_COMPRESSION)


@dataclasses.dataclass(frozen=True)
class Record:
    """The data of one frame; `intact` is False if its checksum does not match."""

    index: int
    offset: int
    data: bytes
    intact: bool


@dataclasses.dataclass(frozen=True)
class Rest:
    """The part of a shard, from `offset` to its end, that cannot be read as frames; `chunks` yields its bytes once."""

    index: int
    offset: int
    reason: str
    detail: str
    chunks: Iterator[bytes]


def masked_crc32c(data: bytes) -> int:
    """Returns the CRC-32C of `data`, rotated and offset as TFRecord requires."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """Returns `data` as one TFRecord frame."""
    length = struct.pack("<Q", len(data))
    checksums = struct.pack("<I", masked_crc32c(length)), struct.pack("<I", masked_crc32c(data))
    return b"".join((length, checksums[0], data, checksums[1]))


def read_records(shard: BinaryIO) -> Iterator[Record | Rest]:
    """Yields every record of a shard in order and, if the framing breaks, one `Rest` last.

    `shard` is a seekable binary file: uncompressed, zlib or gzip. Damage never raises. Memory is bounded by the longest
    record; a record over 128 MiB counts as a bad length. A compressed shard that inflates to more than `MAX_RATIO`
    times its size counts as damaged from there on, so that a small file cannot fill the memory or a disk.
    """
    stream = open_stream(shard)
    offset = index = 0
    while True:
        header, body = stream.read(LENGTH_BYTES), b""
        if len(header) == LENGTH_BYTES:
            length = _length(header)
            if length is None or length > MAX_RECORD_BYTES:
                detail = "the checksum of a length is wrong" if length is None else f"a record of {length} bytes"
                yield Rest(index, offset, BAD_LENGTH, f"{detail}; the rest of the shard is lost", _rest(header, stream))
                return
            body = stream.read(length + 4)
            if len(body) == length + 4:
                data = body[:length]
                yield Record(index, offset, data, struct.unpack_from("<I", body, length)[0] == masked_crc32c(data))
                offset += length + FRAME_BYTES
                index += 1
                continue
            detail = f"the shard ends {len(body)} bytes into a record of {length}"
        else:
            detail = f"the shard ends {len(header)} bytes into a length"
        problem = stream.problem if isinstance(stream, Inflated) else ""
        if header or problem:
            reason = BAD_COMPRESSION if problem else TRUNCATED_SHARD
            yield Rest(index, offset, reason, problem or detail, _rest(header + body, stream))
        return


def open_stream(shard: BinaryIO) -> "BinaryIO | Inflated":
    """Returns the shard's uncompressed bytes as a stream.

    The low bytes of a length may look like a zlib header, so a valid first length is checked before the magic bytes.
    """
    head = shard.read(LENGTH_BYTES)
    shard.seek(0)
    if len(head) == LENGTH_BYTES and _length(head) is not None:
        return shard
    if head[:2] == b"\x1f\x8b":
        return Inflated(shard, GZIP_WBITS)
    if len(head) >= 2 and head[0] & 0x8F == 0x08 and int.from_bytes(head[:2], "big") % 31 == 0:
        return Inflated(shard, ZLIB_WBITS)
    return shard


class Inflated:
    """A zlib or gzip file as an uncompressed stream; `problem` says why it ended early, or is empty."""

    def __init__(self, shard: BinaryIO, wbits: int) -> None:
        self._shard = shard
        self._wbits = wbits
        self._inflater = zlib.decompressobj(wbits)
        self._input = b""
        self._ready = bytearray()
        self._bytes_in = self._bytes_out = 0
        self._done = False
        self.problem = ""

    def read(self, size: int) -> bytes:
        """Returns the next `size` bytes, fewer only at the end."""
        while len(self._ready) < size and not self._done:
            self._ready += self._inflate(max(size - len(self._ready), CHUNK_BYTES))
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def _inflate(self, size: int) -> bytes:
        if not self._input:
            self._input = self._shard.read(CHUNK_BYTES)
            self._bytes_in += len(self._input)
        if not self._input:
            return self._end("" if self._inflater.eof else "the compressed stream ends early")
        if self._inflater.eof and not self._next_member():
            return b""
        try:
            data = self._inflater.decompress(self._input, size)
        except zlib.error as error:
            return self._end(f"the compressed stream is damaged: {error}")
        self._input = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
        self._bytes_out += len(data)
        if self._bytes_out > MAX_RECORD_BYTES + MAX_RATIO * self._bytes_in:
            self._end(f"the compressed stream inflates to more than {MAX_RATIO} times its size")
        return data

    def _next_member(self) -> bool:
        """Starts the next gzip member; padding of zeros is skipped, anything else is a problem."""
        self._input = self._input.lstrip(b"\0")
        if not self._input:
            return False
        if self._wbits == GZIP_WBITS and self._input.startswith(b"\x1f"):
            self._inflater = zlib.decompressobj(self._wbits)
            return True
        self._end("bytes follow the end of the compressed stream")
        return False

    def _end(self, problem: str) -> bytes:
        self._done, self.problem = True, problem
        return b""


def _length(header: bytes) -> int | None:
    length, checksum = struct.unpack("<QI", header)
    return length if checksum == masked_crc32c(header[:8]) else None


def _rest(beginning: bytes, stream: BinaryIO | Inflated) -> Iterator[bytes]:
    yield beginning
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk
