"""The chunks of a PNG, judged as libpng judges them, with which TensorFlow decodes.

Pillow takes damage that libpng refuses, above all pixels that end early, whose missing rows it leaves black. The rules
are those of libpng 1.6.43 (`png_check_IHDR` in png.c; `png_handle_PLTE`, `png_handle_unknown` and
`png_read_IDAT_data` in pngrutil.c).
"""

import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from marco_model.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3
_CHANNELS = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), _PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Channels and bits of a sample that each colour type may have."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps between columns and rows, of the passes of an interlaced image."""
_INFLATED, _DEFLATED = 1 << 20, 1 << 16
"""Bytes that are inflated at a time, and those that they are inflated from."""
MAX_CHUNKS = 100_000
"""Chunks of 1 KiB, which are smaller than those of any usual writer, make a PNG of 100 MB of these."""


class Header(NamedTuple):
    """What a PNG's first chunk says, checked."""

    width: int
    height: int
    depth: int
    colour: int
    is_interlaced: bool

    def inflated_bytes(self) -> int:
        """Returns how many bytes the rows of all passes take, each with the byte that names its filter."""
        total = 0
        for column, row, column_step, row_step in _ADAM7 if self.is_interlaced else ((0, 0, 1, 1),):
            columns = -((column - self.width) // column_step) if self.width > column else 0
            rows = -((row - self.height) // row_step) if self.height > row else 0
            if columns:
                total += rows * (1 + (columns * self.depth * _CHANNELS[self.colour] + 7) // 8)
        return total


def read_header(encoded: bytes) -> Header:
    """Returns the header of a PNG; raises `InputError` for one that does not begin with a header that may be."""
    if not encoded.startswith(SIGNATURE + b"\0\0\0\x0dIHDR") or len(encoded) < 33:
        raise InputError("does not decode: a PNG that does not begin with its header")
    width, height, depth, colour, compression, filters, interlace = struct.unpack_from(">IIBBBBB", encoded, 16)
    if not (width and height and depth in _DEPTHS.get(colour, ()) and compression == filters == 0 and interlace < 2):
        raise InputError(
            f"does not decode: a PNG whose header is damaged: {width}x{height} pixels, {depth} bits, colour type "
            f"{colour}, compression {compression}, filter {filters}, interlace {interlace}"
        )
    return Header(width, height, depth, colour, bool(interlace))


def only_pixels(encoded: bytes) -> bytes:
    """Returns a PNG with only the chunks that its pixels need, after its EXIF data if these are sound.

    Pillow refuses images for damage or size of the others, which TensorFlow ignores. Raises `InputError` for every
    file that libpng refuses, for data that go on for a megabyte after the last row, and for more than `MAX_CHUNKS`.
    """
    header, chunks, exif = read_header(encoded), dict[bytes, list[bytes]](), b""
    kind, is_after_data = b"", False
    for number, (kind, chunk, is_sound) in enumerate(_chunks(encoded)):
        if number >= MAX_CHUNKS:
            raise InputError(f"a PNG of more than the {MAX_CHUNKS:,} chunks accepted")
        if not (kind.isalpha() and kind.isascii()):
            raise InputError(f"does not decode: a PNG with a chunk whose name is no name: {kind!r}")
        if kind[:1].isupper():
            _check_critical(kind, is_sound, chunks)
            # Data after another chunk, and a palette after data, are no part of the image.
            if b"IDAT" not in chunks or (kind == b"IDAT" and not is_after_data):
                chunks.setdefault(kind, []).append(chunk)
        elif kind == b"eXIf" and is_sound:
            exif = chunk
        is_after_data |= b"IDAT" in chunks and kind != b"IDAT"
    if kind != b"IEND":
        raise InputError("does not decode: a PNG that is cut short")
    (first,), palette, data = chunks[b"IHDR"], chunks.get(b"PLTE", []), chunks.get(b"IDAT", [])
    if header.colour != _PALETTE:
        palette = []
    elif not palette or not 1 <= len(palette[0]) // 3 - 4 <= 256 or len(palette[0]) % 3:
        raise InputError("does not decode: a PNG whose palette is missing or damaged")
    _check_data(data, header.inflated_bytes())
    return b"".join([SIGNATURE, first, exif, *palette, *data, chunk])


def _check_critical(kind: bytes, is_sound: bool, before: Collection[bytes]) -> None:
    """Checks a chunk that a decoder must understand; `before` are the kinds of those before it."""
    name = kind.decode()
    if kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
        raise InputError(f"does not decode: a PNG with a chunk {name}, which PNG does not have")
    if not is_sound:
        raise InputError(f"does not decode: a PNG whose chunk {name} is damaged or cut short")
    if kind in (b"IHDR", b"PLTE") and kind in before:
        raise InputError(f"does not decode: a PNG with two chunks {name}")


def _check_data(chunks: Iterable[bytes], expected: int) -> None:
    """Checks that the data chunks hold a whole zlib stream of at least as many bytes as the rows take."""
    inflater, count, most = zlib.decompressobj(), 0, expected + _INFLATED
    try:
        for chunk in chunks:
            data = memoryview(chunk)[8:-4]
            for start in range(0, len(data), _DEFLATED):
                rest: bytes | memoryview = data[start : start + _DEFLATED]
                while rest and count <= most:
                    count += len(inflater.decompress(rest, _INFLATED))
                    rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise InputError(f"does not decode: a PNG whose data are damaged: {error}") from None
    if count > most:
        raise InputError(f"does not decode: a PNG with data for more than its {expected:,} bytes of rows")
    if count < expected or not inflater.eof:
        raise InputError("does not decode: a PNG whose data are cut short")


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yields the kind and the bytes of each chunk up to the end, and whether its length and its check sum are right."""
    position, kind = len(SIGNATURE), b""
    while position + 8 <= len(encoded) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", encoded, position)
        chunk = encoded[position : position + length + 12]
        position += len(chunk)
        is_whole = len(chunk) == length + 12
        yield kind, chunk, is_whole and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
