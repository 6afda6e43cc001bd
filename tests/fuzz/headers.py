"""Image headers against the decoders: `python -m tests.fuzz.headers --count 1000000` judges so many mutated files.

Where our reading and a decoder's differ, the picture must be refused; nothing above the limit may be decoded.
"""

import argparse
import collections
import io
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from marco_data import image_files
from marco_model import errors, pictures, pixels
from tests.fuzz import images, seeds

Size = tuple[int, int]
"""Height and width."""

NO_HEADER, TOO_LARGE, UNDECODABLE, AGREE, DIFFER = (
    "our reading finds no header",
    "over the limit by our reading",
    "refused by every decoder",
    "decoded, sizes agree",
    "readings differ, refused",
)
REFUSED = (NO_HEADER, TOO_LARGE, UNDECODABLE, DIFFER)


def kind_of(encoded: bytes) -> str:
    """Returns the format by the first bytes."""
    starts = {b"\xff\xd8": "JPEG", b"\x89P": "PNG", b"II": "TIFF", b"MM": "TIFF", b"BM": "BMP"}
    return starts.get(encoded[:2], "other")


def judge(encoded: bytes, tensorflow: Callable[[bytes], Size] | None = None) -> str:
    """Returns what became of a picture; raises `AssertionError` if it is decoded in a size that was not read before.

    `tensorflow`: returns the size to which a served graph decodes it, and raises `InputError` if it refuses it.
    """
    if encoded.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        try:
            header = image_files.image_header(encoded)
        except ValueError:
            served = _size_of(tensorflow, encoded) if tensorflow else None
            assert not served or served[0] * served[1] <= pixels.MAX_PIXELS, f"tensorflow: {served} over the limit"
            return NO_HEADER
        size = header.height, header.width
    else:
        opened = _pillow(encoded)
        if opened is None:
            assert _size_of(pictures.upright, encoded) is None, "decoded without a header"
            return NO_HEADER
        size = opened
    if size[0] * size[1] > pixels.MAX_PIXELS:
        assert _size_of(pictures.upright, encoded) is None, f"{size} is over the limit and was decoded"
        if tensorflow and kind_of(encoded) in ("JPEG", "PNG"):
            assert _size_of(tensorflow, encoded) is None, f"tensorflow: {size} is over the limit and was decoded"
        return TOO_LARGE
    decoders: dict[str, Callable[[bytes], Size]] = {"upright": lambda image: _decoded(pictures.upright(image))}
    if kind_of(encoded) in ("JPEG", "PNG"):
        decoders["decode"] = _decoded
        if tensorflow:
            decoders["tensorflow"] = tensorflow
    decoded = {name: _size_of(decoder, encoded) for name, decoder in decoders.items()}
    for name, result in decoded.items():
        turned = name == "upright" and result == size[::-1]
        assert result in (None, size) or turned or _is_page(encoded, result), f"{name}: {result} instead of {size}"
    if any(decoded.values()):
        return AGREE
    return DIFFER if _pillow(encoded) not in (None, size) else UNDECODABLE


def _is_page(encoded: bytes, size: Size | None) -> bool:
    """Whether a TIFF has a page of this size, whichever way up, which is within the limit."""
    if kind_of(encoded) != "TIFF" or size is None or size[0] * size[1] > pixels.MAX_PIXELS:
        return False
    with Image.open(io.BytesIO(encoded), formats=("TIFF",)) as image:
        for page in range(image.n_frames):
            image.seek(page)
            if sorted((image.height, image.width)) == sorted(size):
                return True
    return False


def _decoded(encoded: bytes) -> Size:
    height, width, _ = pixels.decode(encoded).shape
    return height, width


def _size_of(decoder: Callable[[bytes], object], encoded: bytes) -> Size | None:
    try:
        return decoder(encoded)  # type: ignore[return-value]
    except errors.InputError:
        return None


def _pillow(encoded: bytes) -> Size | None:
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG", "TIFF", "BMP")) as image:
            return image.height, image.width
    except Image.DecompressionBombError:
        return pixels.MAX_PIXELS, pixels.MAX_PIXELS
    except Exception:
        return None


def tensorflow_decoder() -> Callable[[bytes], Size]:
    """Returns what gives the size to which a served graph decodes a picture, or raises `InputError`."""
    import tensorflow as tf

    from marco_model import preprocessing

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def shape(encoded: tf.Tensor) -> tf.Tensor:
        return tf.shape(preprocessing.decode(preprocessing.within_limits(encoded)))

    def size(encoded: bytes) -> Size:
        try:
            height, width, _ = shape(tf.constant(encoded)).numpy()
        except tf.errors.OpError as error:
            raise errors.InputError(errors.one_line(error)) from None
        return int(height), int(width)

    return size


def count_outcomes(count: int, seed: int, tensorflow: bool) -> Mapping[tuple[str, str], int]:
    """Judges `count` mutated pictures, of each format as many; prints and keeps those that break the rule."""
    draw = random.Random(seed)
    by_format: dict[str, list[bytes]] = {}
    for image in seeds.pictures().values():
        if kind_of(image) != "other" and len(image) < 50_000:
            by_format.setdefault(kind_of(image), []).append(image)
    outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
    decoder = tensorflow_decoder() if tensorflow else None
    started = time.monotonic()
    for number in range(count):
        kind = list(by_format)[number % len(by_format)]
        encoded = images.mutated(draw.choice(by_format[kind]), draw)
        try:
            outcome = judge(encoded, decoder)
        except AssertionError as error:
            outcome = f"WRONG: {str(error)[:60]}"
            path = Path(".fuzz/findings/headers") / f"header-{kind}-{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)
        outcomes[kind, outcome] += 1
        if number % 50_000 == 49_999:
            print(f"{number + 1:,} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return outcomes


def main() -> None:
    """Prints the counts as a table; ends with status 1 if a picture was decoded in another size than read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tensorflow", action="store_true", help="the decoder of served graphs too")
    options = parser.parse_args()
    # What decoders say of damage on the descriptor of errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    outcomes = count_outcomes(options.count, options.seed, options.tensorflow)
    for (kind, outcome), times in sorted(outcomes.items()):
        print(f"{kind:5} {outcome:40} {times:10,}")
    sys.exit(any(outcome.startswith("WRONG") for _, outcome in outcomes))


if __name__ == "__main__":
    main()
