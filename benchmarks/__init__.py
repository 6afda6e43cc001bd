"""Speed and realism, always as a ratio against a peer measured in the same run; README.md lists the benchmarks.

What they share is here: the parser of their options, measuring in turns, the report, and the images and records that
both sides get.
"""

import argparse
import concurrent.futures
import contextlib
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from marco_data import contract, synthetic, tfrecord
from marco_model import labels, recipe

IMAGES = str(Path(__file__).parents[1] / "tests" / "data" / "images")
"""A folder of six real images of 1280x960 pixels."""

Item = TypeVar("Item")
Side = TypeVar("Side")


def parser(description: str | None, *, rounds: int = 0, images: str = "") -> argparse.ArgumentParser:
    """Returns a parser that shows a benchmark's docstring, with the options that several benchmarks have.

    These are `--rounds`, whose default is `rounds`, and `--images`, a folder of JPEGs, whose help text is `images`.
    """
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds:
        options.add_argument("--rounds", type=int, default=rounds, help=f"turns of each side (default {rounds})")
    if images:
        options.add_argument("--images", type=jpeg_files, default=IMAGES, help=images)
    return options


def choose(**mains: Callable[[list[str]], None]) -> None:
    """Runs the one of several benchmarks that the command line names first, with the options that follow."""
    options = argparse.ArgumentParser(epilog="A name and --help show what that benchmark measures and its options.")
    options.add_argument("name", choices=mains)
    options.add_argument("options", nargs=argparse.REMAINDER)
    chosen = options.parse_args()
    mains[chosen.name](chosen.options)


def jpeg_files(folder: str) -> list[Path]:
    """Returns the JPEGs in a folder in the order of their names; an option's type."""
    files = sorted(Path(folder).glob("*.jp*g"))
    if not files:
        raise argparse.ArgumentTypeError(f"no JPEGs in {folder}")
    return files


def batches(items: list[Item], size: int) -> Iterator[list[Item]]:
    """Yields `size` items at a time, at the end those that remain."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yields a new folder and deletes it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def note(text: object) -> None:
    """Prints progress and further figures to stderr."""
    print(text, file=sys.stderr, flush=True)


def seconds(work: Callable[[], object]) -> float:
    """Returns how long `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def medians(
    ours: Side,
    peer: Side,
    rounds: int,
    *,
    warm_up: int = 0,
    figure: Callable[[Side], float] = seconds,  # type: ignore[assignment]
    quiet: bool = False,
) -> tuple[float, float]:
    """Returns the median `figure` of each side over `rounds`, by default the seconds that a call of the side takes.

    The sides take turns, and the one that begins alternates. Rounds of `warm_up` come first and do not count. Progress
    goes to stderr unless `quiet`.
    """
    sides = {"ours": ours, "peer": peer}
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name in sides if number % 2 == 0 else reversed(sides):
            figures[name].append(figure(sides[name]))
        if number >= warm_up and not quiet:
            latest = ", ".join(f"{name} {values[-1]:.4g}" for name, values in figures.items())
            note(f"round {number - warm_up + 1}: {latest}")
    return statistics.median(figures["ours"][warm_up:]), statistics.median(figures["peer"][warm_up:])


@contextlib.contextmanager
def own_process(variables: Mapping[str, str]) -> Iterator[Callable[..., Any]]:
    """Yields a call of functions in a new process that has these of `recipe.TENSORFLOW_DEFAULTS` alone set."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        inherited = dict(os.environ)
        for name in recipe.TENSORFLOW_DEFAULTS:
            os.environ.pop(name, None)
        os.environ.update(variables)
        pool.submit(os.getpid).result()  # The process starts now.
        os.environ.clear()
        os.environ.update(inherited)
        yield lambda *call: pool.submit(*call).result()


def report(ours: float, peer: float, unit: str, **more: object) -> None:
    """Prints `{"ours": …, "peer": …, "ratio": …, "unit": …}` and `more`, the ratio being ours ÷ peer."""
    figures = {"ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 4), "unit": unit}
    print(json.dumps(figures | more))


def draw(count: int, settings: synthetic.Settings, processes: int = 2) -> list[tuple[bytes, synthetic.Plan]]:
    """Returns the first `count` drops of a synthetic set as JPEGs, each with the plan of what it shows."""
    jpegs = enumerate(synthetic.writer.jpegs(list(range(count)), settings, processes))
    return [(jpeg, synthetic.plan(settings, number)) for number, (jpeg, _, _) in jpegs]


def distinct(jpeg: bytes, number: int) -> bytes:
    """Returns the same JPEG with a comment of its own, so that no two records have the same bytes."""
    comment = f"image {number}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def example(jpeg: bytes, number: int, label: int, **texts: str) -> bytes:
    """Returns image `number` as a serialized example in the MARCO contract, with `texts` as further features."""
    width, height = Image.open(io.BytesIO(jpeg)).size
    record = contract.build_example(
        encoded=jpeg,
        image_format="JPEG",
        height=height,
        width=width,
        filename=f"{number}.jpg",
        image_id=number,
        label=label,
        label_text=labels.CLASSES[label],
        label_raw=0,
        source=number % 5,
    )
    for name, text in texts.items():
        record.features.feature[name].bytes_list.value.append(text.encode())
    return bytes(record.SerializeToString(deterministic=True))


def write_records(folder: Path, examples: Iterable[bytes], shards: int) -> list[str]:
    """Writes examples in turn to `shards` files, named as ExampleGen's are; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"data_tfrecord-{shard:05d}-of-{shards:05d}" for shard in range(shards)]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for number, record in enumerate(examples):
            files[number % shards].write(tfrecord.frame(record))
    return [str(path) for path in paths]
