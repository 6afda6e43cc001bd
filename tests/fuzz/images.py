"""Mutations of image files that know their structure: segments of JPEG, chunks of PNG, tags of TIFF, BMP's header.

A mutation of bytes alone seldom gets past a checksum or a length; these change what a header says and leave the rest
readable, or break just one thing.
"""

import random
import struct
import zlib

SIDES = (0, 1, 2, 15, 16, 17, 64, 255, 256, 1000, 8192, 13370, 32768, 65500, 65535, 1 << 16, 1 << 24, (1 << 31) - 1)
"""Widths and heights. 13,370 squared is over the limit of 50 million pixels, and below that of decoders."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 12: 8, 13: 4, 16: 8}
_TIFF_TAGS = (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 284, 317, 320, 322, 323, 324, 330, 338)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Returns a file with one to three changes of the kind that its first bytes call for."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if data.startswith(b"\xff\xd8"):
            data = _jpeg(data, draw)
        elif data.startswith(_PNG_SIGNATURE):
            data = _png(data, draw)
        elif data[:4] in (b"II*\0", b"MM\0*"):
            data = _tiff(data, draw)
        elif data.startswith(b"BM"):
            data = _bmp(data, draw)
        else:
            data = changed_bytes(data, draw)
    return data


def changed_bytes(data: bytes, draw: random.Random) -> bytes:
    """Returns bytes of which a few are changed, removed, repeated or cut off."""
    if not data:
        return bytes(draw.randbytes(draw.randint(1, 64)))
    place, length = draw.randrange(len(data)), draw.choice((1, 1, 2, 4, 16))
    old = data[place : place + length]
    new = draw.choice((draw.randbytes(len(old)), b"", old * 2, bytes(len(old)), b"\xff" * len(old)))
    return data[:place] if draw.random() < 0.05 else data[:place] + new + data[place + len(old) :]


def side(draw: random.Random) -> int:
    """Returns a width or height; large ones are rare, since those below the limit are decoded."""
    return draw.choice(SIDES) if draw.random() < 0.15 else draw.randint(1, 40)


# JPEG


def _jpeg(data: bytes, draw: random.Random) -> bytes:
    segments, rest = _segments(data)
    kind = draw.randrange(12)
    place = draw.randint(0, len(segments))
    frames = [number for number, (marker, _) in enumerate(segments) if marker in _FRAMES]
    if kind == 0 and frames:
        number = draw.choice(frames)
        marker, body = segments[number]
        size = struct.pack(">HH", side(draw) & 0xFFFF, side(draw) & 0xFFFF)
        segments[number] = marker, body[:1] + size + body[5:]
    elif kind == 1 and frames:
        segments.insert(place, (draw.choice(_FRAMES), _frame(draw)))
    elif kind == 2:  # A frame header within what a decoder skips.
        fake = struct.pack(">BBH", 0xFF, 0xC0, 17) + _frame(draw)
        segments.insert(
            place, (draw.choice((0xFE, 0xE0, 0xE1, 0xED, 0x00, 0x01, 0x02)), draw.choice((b"", b"\0")) + fake)
        )
    elif kind == 3 and segments:
        segments.insert(place, draw.choice(segments))
    elif kind == 4 and segments:
        segments.pop(draw.randrange(len(segments)))
    elif kind == 5 and len(segments) > 1:
        draw.shuffle(segments)
    elif kind == 6 and segments:
        number = draw.randrange(len(segments))
        segments[number] = draw.randrange(256), segments[number][1]
    elif kind == 7:
        return _joined(segments, rest * draw.choice((2, 3, 90, 110)))
    elif kind == 8:
        return _joined(segments, rest, lengths=draw)
    elif kind == 9:
        stray = draw.choice(
            (b"\xff", b"\0", b"\xff\0", b"\xff\0\0\x20", b"\xff\xd0", b"\xff\xd9", b"\xff\xff\xff", b"ab")
        )
        return _joined(segments[:place], b"") + stray + _joined(segments[place:], rest)[2:]
    elif kind == 10 and segments:
        number = draw.randrange(len(segments))
        segments[number] = segments[number][0], changed_bytes(segments[number][1], draw)
    else:
        rest = draw.choice((changed_bytes(rest, draw), rest[: len(rest) // 2], rest + data, rest[:-2]))
    return _joined(segments, rest)


def _frame(draw: random.Random) -> bytes:
    return struct.pack(">BHHB", 8, side(draw) & 0xFFFF, side(draw) & 0xFFFF, 3) + b"\1\x22\0\2\x11\1\3\x11\1"


def _segments(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Returns marker and body of the segments before the first scan, and the rest from its marker on."""
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        length = max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
        segments.append((data[place + 1], data[place + 4 : place + 2 + length]))
        place += 2 + length
    return segments, data[place:]


def _joined(segments: list[tuple[int, bytes]], rest: bytes, lengths: random.Random | None = None) -> bytes:
    """Returns the file; with `lengths` one length is wrong."""
    wrong = lengths.randrange(len(segments)) if lengths and segments else -1
    parts = [b"\xff\xd8"]
    for number, (marker, body) in enumerate(segments):
        length = len(body) + 2
        if lengths and number == wrong:
            length = lengths.choice((0, 1, 2, length - 1, length + 1, length + 4, 0xFFFF))
        parts.append(struct.pack(">BBH", 0xFF, marker, length & 0xFFFF) + body)
    return b"".join(parts) + rest


# PNG


def _png(data: bytes, draw: random.Random) -> bytes:
    chunks = _chunks(data)
    kind, place = draw.randrange(10), draw.randint(0, len(chunks))
    sound = draw.random() < 0.9
    headers = [number for number, (name, _) in enumerate(chunks) if name == b"IHDR"]
    if kind == 0 and headers:
        number = draw.choice(headers)
        chunks[number] = b"IHDR", struct.pack(">II", side(draw), side(draw)) + chunks[number][1][8:]
    elif kind == 1:
        chunks.insert(place, (b"IHDR", _png_header(draw)))
    elif kind == 2 and headers:
        number, body = headers[0], bytearray(chunks[headers[0]][1].ljust(13, b"\0"))
        body[draw.randint(8, 12)] = draw.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        chunks[number] = b"IHDR", bytes(body)
    elif kind == 3 and chunks:
        chunks.insert(place, draw.choice(chunks))
    elif kind == 4 and chunks:
        chunks.pop(draw.randrange(len(chunks)))
    elif kind == 5:
        draw.shuffle(chunks)
    elif kind == 6:
        name = draw.choice(
            (b"tEXt", b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"gAMA")
        )
        body = draw.choice((b"", b"a\0" + b"b" * 20, b"a\0\0" + zlib.compress(bytes(1 << 16)), _png_header(draw)))
        chunks.insert(place, (name, body))
    elif kind == 7 and chunks:
        number = draw.randrange(len(chunks))
        chunks[number] = chunks[number][0], changed_bytes(chunks[number][1], draw)
    elif kind == 8:
        pixels = zlib.compress(draw.choice((bytes(1 << 18), draw.randbytes(600), b"")))
        chunks = [(name, pixels if name == b"IDAT" else body) for name, body in chunks]
    else:
        return changed_bytes(data, draw)
    return _PNG_SIGNATURE + b"".join(_chunk(name, body, sound) for name, body in chunks)


def _png_header(draw: random.Random) -> bytes:
    return struct.pack(">II5B", side(draw), side(draw), draw.choice((1, 8, 8, 16)), draw.choice((0, 2, 3, 6)), 0, 0, 0)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += length + 12
    return chunks


def _chunk(name: bytes, body: bytes, sound: bool = True) -> bytes:
    checksum = zlib.crc32(name + body) ^ (0 if sound else 1)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


# TIFF


def _tiff(data: bytes, draw: random.Random) -> bytes:
    order = "<" if data.startswith(b"II") else ">"
    content = bytearray(data)
    entries, ends = _tiff_entries(data, order)
    kind = draw.randrange(6)
    if kind == 0 and ends:  # The next page: this one again, an earlier place, or beyond the end.
        struct.pack_into(order + "I", content, draw.choice(ends), draw.choice((8, 0, 4, len(data), len(data) * 2)))
    elif kind < 5 and entries:
        place = draw.choice(entries)
        field = draw.randrange(4)
        if field == 0:
            struct.pack_into(order + "H", content, place, draw.choice(_TIFF_TAGS))
        elif field == 1:
            struct.pack_into(order + "H", content, place + 2, draw.choice((*_TIFF_TYPES, 0, 99)))
        elif field == 2:
            struct.pack_into(order + "I", content, place + 4, draw.choice((0, 1, 2, 3, 1000, 1 << 20, (1 << 32) - 1)))
        else:
            wide = struct.unpack_from(order + "H", content, place + 2)[0] != 3
            value = draw.choice((side(draw), draw.randint(0, 8), draw.choice((32773, 34712, 50000, len(data)))))
            struct.pack_into(
                order + ("I" if wide else "H"), content, place + 8, value & (0xFFFFFFFF if wide else 0xFFFF)
            )
    else:
        return changed_bytes(data, draw)
    return bytes(content)


def _tiff_entries(data: bytes, order: str) -> tuple[list[int], list[int]]:
    """Returns the places of the entries of all pages, and those of the offsets of the next pages."""
    entries, ends, seen = list[int](), list[int](), set[int]()
    page = struct.unpack_from(order + "I", data, 4)[0] if len(data) >= 8 else 0
    while page and page not in seen and page + 2 <= len(data):
        seen.add(page)
        count = struct.unpack_from(order + "H", data, page)[0]
        end = page + 2 + 12 * count
        if end + 4 > len(data):
            break
        entries += range(page + 2, end, 12)
        ends.append(end)
        page = struct.unpack_from(order + "I", data, end)[0]
    return entries, ends


# BMP


def _bmp(data: bytes, draw: random.Random) -> bytes:
    content = bytearray(data)
    field = draw.choice(
        ((10, "I"), (14, "I"), (18, "i"), (22, "i"), (26, "H"), (28, "H"), (30, "I"), (46, "I"), (0, ""))
    )
    if not field[1] or len(data) < 54:
        return changed_bytes(data, draw)
    values = {
        18: side(draw),
        22: draw.choice((1, 1, -1)) * side(draw),
        28: draw.choice((0, 1, 2, 4, 8, 16, 24, 32, 64)),
    }
    value = values.get(field[0], draw.choice((0, 1, 2, 3, 12, 40, 54, 56, 64, 108, 124, len(data), 1 << 30)))
    struct.pack_into("<" + field[1], content, field[0], value & 0xFFFF if field[1] == "H" else value)
    return bytes(content)
