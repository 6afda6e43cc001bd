"""Secrets that are recognized wherever they end: their values, and a search through everything that a command wrote.

A value repeats `PREFIX` and a number of its own, so that any third of it is found, too. It is looked for as it is, in
any case of letters, percent-encoded, base64 at each of the three alignments, hexadecimal, escaped for JSON and in
UTF-16; below gzip, ZIP (NumPy, Office), tar, Parquet and SQLite as well, and in names of files.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import os
import re
import sqlite3
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

PREFIX = "Kq7Zxw"
MOST_LEVELS = 5


def value(number: int) -> str:
    """Returns the secret of a number below 65,536."""
    return f"{PREFIX}{number:04x}" * 3


def forms(text: str) -> set[bytes]:
    """Returns how `text` may be written somewhere within other text."""
    plain = text.encode()
    found = {plain, plain.hex().encode(), text.encode("utf-16-le")}
    for percent in ("%%%02x", "%%%02X"):
        found.add("".join(percent % byte for byte in plain).encode())
    for escape in ("\\u%04x", "\\u%04X"):
        found.add("".join(escape % byte for byte in plain).encode())
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + plain)
        # Without the characters that hold a part of what stands around it.
        inner = coded[-(-8 * shift // 6) : (shift + len(plain)) * 8 // 6]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


class Search:
    """Looks for all secrets of `value`, and for the texts in `more`, which are secrets of another shape."""

    def __init__(self, *more: str) -> None:
        texts = (PREFIX, *more)
        self._needles = sorted({form for text in texts for form in forms(text)})
        self._lower = [text.lower().encode() for text in texts]

    def in_bytes(self, content: bytes, levels: int = MOST_LEVELS) -> list[str]:
        """Returns the surroundings of what is found in `content` and in what it holds compressed."""
        lower = content.lower()
        hits = [(content, content.find(needle)) for needle in self._needles]
        hits += [(content, lower.find(needle)) for needle in self._lower]
        found = [repr(text[max(0, place - 60) : place + 60]) for text, place in hits if place >= 0]
        if not found and levels:
            for inner in _unpacked(content):
                found += self.in_bytes(inner, levels - 1)
        return found

    def below(self, folder: Path, but: frozenset[Path] = frozenset()) -> tuple[int, list[str]]:
        """Returns how many files lie below `folder`, and where something is found in one, or in its name."""
        count, found = 0, []
        for path in sorted(folder.rglob("*")):
            found += [f"name of {path}: {hit}" for hit in self.in_bytes(os.fsencode(path.name), 0)]
            if path.is_symlink():
                found += [f"link {path}: {hit}" for hit in self.in_bytes(os.fsencode(path.readlink()), 0)]
            elif path.is_file() and path not in but:
                count += 1
                found += [f"{path}: {hit}" for hit in self.in_bytes(path.read_bytes())]
        return count, found


_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError)


def _unpacked(content: bytes) -> Iterator[bytes]:
    """Yields what a file of one of the formats holds."""
    with contextlib.suppress(*_DAMAGED, sqlite3.Error):
        if content.startswith(b"\x1f\x8b"):
            yield gzip.decompress(content)
        elif content.startswith(b"PK\3\4"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                yield from (archive.read(name) for name in archive.namelist())
        elif content.startswith(b"SQLite format 3\0"):
            # Long texts of a database lie in pieces on its pages.
            with tempfile.NamedTemporaryFile(suffix=".db") as file:
                file.write(content)
                file.flush()
                with contextlib.closing(sqlite3.connect(file.name)) as database:
                    yield "\n".join(database.iterdump()).encode()
        elif content[:4] == b"PAR1" == content[-4:]:
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(io.BytesIO(content))
            yield repr(table.schema.metadata).encode()
            yield b"\n".join(re.sub(rb"\\x00", b"", repr(row).encode()) for row in table.to_pylist())
        elif content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                yield from (member.read() for item in archive if (member := archive.extractfile(item)))
