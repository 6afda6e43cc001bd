"""A small set of MARCO shards with damage of every kind, and what an ingest must report about each."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from marco_data import contract, tfrecord
from marco_data.name_tables import write_tables
from marco_data.tfrecord import FRAME_BYTES, frame
from marco_model.labels import CLASSES

HEIGHT, WIDTH = 40, 48


class Damage(NamedTuple):
    """An entry that the quarantine must have; `data`: the bytes as they are in the shard."""

    shard: str
    offset: int
    index: int
    image_id: str
    reason: str
    data: bytes


class DamagedSet(NamedTuple):
    """A folder of shards, the ids of its sound records by split, and its damage."""

    folder: str
    sound: dict[str, set[int]]
    damage: list[Damage]


def encoded_image(number: int, image_format: str = "JPEG", height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """Returns noise that depends on `number`, so that no two images have the same bytes."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


def marco_example(number: int, **changes):
    """Returns a sound `tf.train.Example`; `changes` are arguments of `build_example`."""
    image_format = changes.get("image_format", "JPEG")
    features = {
        "encoded": changes.get("encoded") or encoded_image(number, image_format),
        "image_format": image_format,
        "height": HEIGHT,
        "width": WIDTH,
        "filename": f"{number % 7:04x}_A{number % 12 + 1}_ImagerDefaults_{number}.jpg",
        "image_id": number,
        "label": number % 4,
        "label_text": CLASSES[number % 4],
        "label_raw": number % 38,
        "source": number % 5,
    }
    return contract.build_example(**{**features, **changes})


def bomb(side: int = 60_000) -> bytes:
    """Returns a PNG whose header declares `side` × `side` pixels and which has none."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(b"\0"), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


class _ShardBuilder:
    def __init__(self, name: str) -> None:
        self.name = name
        self.content = b""
        self.sound: set[int] = set()
        self.damage: list[Damage] = []
        self._index = 0

    def good(self, *numbers: int, **changes) -> None:
        for number in numbers:
            self._append(frame(marco_example(number, **changes).SerializeToString()))
            self.sound.add(number)

    def bad(self, reason: str, example, image_id: str | None = None, framed: bytes | None = None) -> None:
        """Appends a record that must be quarantined; `framed`: its bytes in the shard unless properly framed."""
        data = example if isinstance(example, bytes) else example.SerializeToString()
        if image_id is None:
            image_id = str(example.features.feature[contract.IMAGE_ID].int64_list.value[0])
        self.damage.append(Damage(self.name, len(self.content), self._index, image_id, reason, data))
        self._append(frame(data) if framed is None else framed)

    def _append(self, framed: bytes) -> None:
        self.content += framed
        self._index += 1


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :]


def _without(example, name: str):
    del example.features.feature[name]
    return example


def _twice(example, name: str):
    example.features.feature[name].int64_list.value.append(1)
    return example


def build_damaged_set(folder) -> DamagedSet:
    """Writes seven shards with twenty entries for the quarantine: one of each kind, and one shard without a record."""
    first = _ShardBuilder("train-00001-of-00005")
    first.good(*range(10))
    jpeg, png = encoded_image(100), encoded_image(101, "PNG")
    first.bad(contract.UNDECODABLE_IMAGE, marco_example(100, encoded=jpeg[: len(jpeg) // 2]))
    first.bad(contract.UNDECODABLE_IMAGE, marco_example(101, encoded=png[: len(png) // 2], image_format="PNG"))
    first.bad(contract.BAD_IMAGE_HEADER, marco_example(102, encoded=np.random.default_rng(1).bytes(500)))
    first.bad(contract.NOT_AN_EXAMPLE, np.random.default_rng(2).bytes(700), image_id="")
    first.bad(contract.UNKNOWN_LABEL, marco_example(103, label=7))
    first.good(10)
    first.bad(contract.LABEL_TEXT_MISMATCH, marco_example(104, label=0, label_text="Crystals"))
    first.bad(contract.MISSING_FEATURE, _without(marco_example(105), contract.FILENAME), image_id="105")
    first.bad(contract.MALFORMED_FEATURE, _twice(marco_example(106), contract.LABEL), image_id="106")
    first.bad(contract.SIZE_MISMATCH, marco_example(107, height=HEIGHT + 1))
    first.bad(contract.TOO_MANY_PIXELS, marco_example(108, encoded=bomb(), image_format="PNG"))
    first.bad(contract.FORMAT_MISMATCH, marco_example(109, encoded=encoded_image(109, "PNG"), image_format="JPEG"))
    first.bad(contract.UNKNOWN_SOURCE, marco_example(110, source=9))
    first.bad(contract.UNSUPPORTED_FORMAT, marco_example(111, image_format="RAW", encoded=encoded_image(111)))
    first.good(11, 12)

    second = _ShardBuilder("train-00002-of-00005")
    second.good(20, 21, image_format="PNG")
    second.bad(contract.ID_OF_OTHER_IMAGE, marco_example(3, encoded=encoded_image(120)))
    second.bad(contract.DUPLICATE_CONTENT, marco_example(121, encoded=encoded_image(4)))
    second.bad(contract.TRAIN_AND_EVAL, marco_example(122, encoded=encoded_image(50)))
    second.good(22)
    checked = marco_example(123).SerializeToString()
    damaged = _flipped(frame(checked), 12 + len(checked) // 2)
    second.bad(contract.BAD_CHECKSUM, damaged[12:-4], image_id="", framed=damaged)
    second.good(23)
    lost = frame(marco_example(124).SerializeToString())
    rest = _flipped(lost, 3) + frame(marco_example(125).SerializeToString())
    second.bad(contract.BAD_LENGTH, rest, image_id="", framed=rest)

    third = _ShardBuilder("train-00003-of-00005")
    third.good(30, 31)
    tail = frame(marco_example(126).SerializeToString())[:-100]
    third.bad(contract.TRUNCATED_SHARD, tail, image_id="", framed=tail)

    fourth = _ShardBuilder("train-00004-of-00005")
    fourth.good(40, 41, 42)
    empty = _ShardBuilder("train-00005-of-00005")

    held_out = _ShardBuilder("test-00001-of-00002")
    held_out.good(50, 51, 52)
    cut = _ShardBuilder("test-00002-of-00002")
    cut.good(60, 61)
    whole = cut.content
    torn = frame(np.random.default_rng(3).bytes(50_000))
    cut.bad(contract.BAD_COMPRESSION, torn, image_id="", framed=torn)

    shards = [first, second, third, fourth, empty, held_out, cut]
    write_tables(folder)
    for shard in shards:
        content = shard.content
        if shard is fourth:
            content = zlib.compress(content)
        elif shard is cut:
            content = gzip.compress(content, mtime=0)[: len(gzip.compress(whole, mtime=0)) + 20_000]
        (folder / shard.name).write_bytes(content)
    sound = {"train": set(), "eval": set()}
    for shard in shards:
        sound["eval" if shard.name.startswith("test") else "train"] |= shard.sound
    return DamagedSet(str(folder), sound, [entry for shard in shards for entry in shard.damage])


@pytest.fixture(scope="session")
def damaged_set(tmp_path_factory) -> DamagedSet:
    """The damaged set; tests must not write to it."""
    assert FRAME_BYTES == 16 and tfrecord.LENGTH_BYTES == 12
    return build_damaged_set(tmp_path_factory.mktemp("damaged"))


@pytest.fixture(scope="session")
def make_example():
    """Returns `make_example(number, **changes)`, a sound example of a small image."""
    return marco_example


@pytest.fixture
def write_shard():
    """Returns `write_shard(path, examples)`."""

    def write(path, examples):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(frame(example.SerializeToString()) for example in examples))

    return write
