"""Requests that try to take the time or the memory of `marco serve`, and what they cost a normal client."""

import struct


def slow_jpeg(height: int, width: int, scans: int) -> bytes:
    """Returns a legal progressive JPEG of one grey that is small and takes its decoder long.

    Each scan refines every coefficient of every block, though its few bytes say only that nothing changes. `scans`: at
    most 15, beyond which they are no longer legal.
    """
    blocks = -(-height // 8) * -(-width // 8)
    runs, single = divmod(blocks, 32_767)
    header = struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)
    parts = [
        b"\xff\xd8",
        _segment(0xDB, b"\0" + bytes([1] * 64)),
        _segment(0xC2, header),
        _segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\x00"),
        # The code 0 is a run of blocks without a change, with 14 bits of its length; 10 is one such block.
        _segment(0xC4, b"\x10" + bytes([1, 1] + [0] * 14) + b"\xe0\x00"),
        _segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + _bits("0" * blocks),
    ]
    unchanged = _bits(("0" + "1" * 14) * runs + "10" * single)
    for low in range(scans - 2, -1, -1):
        high = 0 if low == scans - 2 else low + 1
        parts.append(_segment(0xDA, bytes([1, 1, 0, 1, 63, high << 4 | low])) + unchanged)
    return b"".join([*parts, b"\xff\xd9"])


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _bits(digits: str) -> bytes:
    digits += "1" * (-len(digits) % 8)
    packed = bytes(int(digits[start : start + 8], 2) for start in range(0, len(digits), 8))
    return packed.replace(b"\xff", b"\xff\x00")
