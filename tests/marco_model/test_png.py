"""PNGs that Pillow takes and libpng refuses, against TensorFlow's decoder."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from marco_model import pixels, png
from marco_model.errors import InputError

WIDTH, HEIGHT = 20, 24
RANDOM = np.random.default_rng(0)
PALETTE = RANDOM.integers(0, 256, 768, dtype=np.uint8).tobytes()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(depth=8, colour=2, compression=0, interlace=0, width=WIDTH, height=HEIGHT):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, compression, 0, interlace))


def rows(count=HEIGHT, depth=8, channels=3):
    width = (WIDTH * depth * channels + 7) // 8
    return b"".join(b"\0" + RANDOM.integers(0, 256, width, dtype=np.uint8).tobytes() for _ in range(count))


def joined(*chunks):
    return b"".join([png.SIGNATURE, *chunks, chunk(b"IEND", b"")])


def with_rows(raw, *before, **fields):
    return joined(header(**fields), *before, chunk(b"IDAT", zlib.compress(raw)))


DATA = zlib.compress(rows())
FIRST, SECOND = chunk(b"IDAT", DATA[:500]), chunk(b"IDAT", DATA[500:])
CASES = {
    "as it should be": with_rows(rows()),
    "data in two chunks": joined(header(), FIRST, SECOND),
    "data parted by text": joined(header(), FIRST, chunk(b"tEXt", b"a\0b"), SECOND),
    "data parted by text from the second of three": joined(
        header(), chunk(b"IDAT", b""), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", b""), chunk(b"IDAT", DATA)
    ),
    "bytes after the data": joined(header(), chunk(b"IDAT", DATA + b"junk")),
    "no data": joined(header()),
    "compression 1": with_rows(rows(), compression=1),
    "interlace 2": with_rows(rows(), interlace=2),
    "width 0": with_rows(rows(), width=0),
    "an unknown critical chunk": with_rows(rows(), chunk(b"ABCD", b"x")),
    "an unknown other chunk": with_rows(rows(), chunk(b"abCD", b"x")),
    "a chunk without a name": with_rows(rows(), chunk(b"a1CD", b"x")),
    "a palette that is not needed": with_rows(rows(), chunk(b"PLTE", PALETTE[:91])),
    "no palette": with_rows(rows(channels=1), colour=3),
    "two palettes": with_rows(rows(channels=1), chunk(b"PLTE", PALETTE), chunk(b"PLTE", PALETTE), colour=3),
    "a palette after the data": joined(
        header(colour=3), chunk(b"IDAT", zlib.compress(rows(channels=1))), chunk(b"PLTE", PALETTE)
    ),
    **{f"{count} rows": with_rows(rows(count)) for count in (0, 1, 12, 23, 25, 40)},
    **{f"{count} grey rows of 16 bits": with_rows(rows(count, 16, 1), depth=16, colour=0) for count in (12, 24)},
    **{f"cut by {cut}": joined(header(), chunk(b"IDAT", DATA[:-cut])) for cut in (1, 2, 4, 5)},
    **{
        f"{len(raw)} bytes of more rows, cut by {cut}": joined(header(), chunk(b"IDAT", zlib.compress(raw)[:-cut]))
        for raw in (rows(25), rows(30))
        for cut in (2, 4)
    },
    **{
        f"a palette of {length} bytes": with_rows(rows(channels=1), chunk(b"PLTE", (2 * PALETTE)[:length]), colour=3)
        for length in (0, 1, 3, 90, 91, 768, 771)
    },
    **{f"{count} interlaced bytes": with_rows(bytes(count), colour=0, interlace=1) for count in range(0, 600, 9)},
    **{
        f"colour type {colour}, {depth} bits": with_rows(
            rows(channels=4), chunk(b"PLTE", PALETTE), depth=depth, colour=colour
        )
        for colour in range(8)
        for depth in (1, 2, 3, 4, 8)
    },
}


@pytest.mark.parametrize("name", CASES)
def test_a_png_is_decoded_as_tensorflow_does_and_refused_if_it_refuses(name):
    tf = pytest.importorskip("tensorflow")
    try:
        expected = tf.io.decode_jpeg(CASES[name], channels=3).numpy()
    except tf.errors.InvalidArgumentError:
        with pytest.raises(InputError, match="does not decode"):
            pixels.decode(CASES[name])
        return
    np.testing.assert_array_equal(pixels.decode(CASES[name]), expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 1), (1, 9), (5, 4), (20, 24), (37, 41)])
@pytest.mark.parametrize(("mode", "depth"), [("1", 1), ("L", 8), ("RGB", 8), ("RGBA", 8), ("I;16", 16)])
def test_rows_take_as_many_bytes_as_pillow_writes(size, mode, depth):
    stored = io.BytesIO()
    Image.new(mode, size).save(stored, "PNG")
    encoded = stored.getvalue()
    start = encoded.index(b"IDAT")
    length = int.from_bytes(encoded[start - 4 : start], "big")
    inflated = zlib.decompress(encoded[start + 4 : start + 4 + length])
    assert png.read_header(encoded).depth == depth
    assert png.read_header(encoded).inflated_bytes() == len(inflated)


def test_data_without_end_are_refused_before_they_are_inflated():
    bomb = with_rows(bytes(50_000_000))
    with pytest.raises(InputError, match=r"data for more than its 1,464 bytes of rows"):
        pixels.decode(bomb)


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt"])
def test_a_png_of_very_many_chunks_is_refused(kind):
    empty = chunk(kind, b"")
    with pytest.raises(InputError, match="a PNG of more than the 100,000 chunks accepted"):
        png.only_pixels(joined(header(), empty * 100_001, FIRST, SECOND))
