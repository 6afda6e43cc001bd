"""ExampleGen against bare decoding: what reading, checking and writing cost on top of it.

Ours is the whole ingest of a set of MARCO shards: framing and checksums, every check, digests, the search for
duplicates, the output and its renaming, Beam's own start included. The peer decodes the same images, held in memory,
with the same decoder in as many threads. Both warm up first, then take turns; each figure is the median of the rounds.

    python -m benchmarks.ingest
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import report, seconds

IMAGES = Path(__file__).parents[1] / "tests" / "data" / "images"
"""Six real images of 1280x960 pixels."""
SHARD_IMAGES = 500


def distinct(jpeg: bytes, number: int) -> bytes:
    """Returns the same JPEG with a comment of its own, so that no two records have the same bytes."""
    comment = f"image {number}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def write_set(sources: Sequence[Path], folder: Path, count: int) -> list[bytes]:
    """Writes `count` records made of the sources to shards, one of them for evaluation; returns the encoded images."""
    from PIL import Image

    from marco_data.contract import build_example
    from marco_data.name_tables import write_tables
    from marco_data.tfrecord import frame
    from marco_model.labels import CLASSES

    write_tables(folder)
    made = [(path.read_bytes(), *Image.open(path).size) for path in sources]
    images = []
    for first in range(0, count, SHARD_IMAGES):
        split = "test" if first == 0 else "train"
        with (folder / f"{split}-{first // SHARD_IMAGES:05d}-of-{count // SHARD_IMAGES:05d}").open("wb") as shard:
            for number in range(first, min(first + SHARD_IMAGES, count)):
                jpeg, width, height = made[number % len(made)]
                images.append(distinct(jpeg, number))
                example = build_example(
                    encoded=images[-1],
                    image_format="JPEG",
                    height=height,
                    width=width,
                    filename=f"{number}.jpg",
                    image_id=number,
                    label=number % len(CLASSES),
                    label_text=CLASSES[number % len(CLASSES)],
                    label_raw=0,
                    source=number % 5,
                )
                shard.write(frame(example.SerializeToString()))
    return images


def main() -> None:
    """Measures and reports, in images a second on all cores."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images-from", type=Path, default=IMAGES, help="folder of JPEGs to make records of")
    options.add_argument("--count", type=int, default=3000, help="records in the set")
    options.add_argument("--rounds", type=int, default=3, help="turns for each side")
    options.add_argument("--beam", nargs="*", help="Beam options; by default those of local runs")
    chosen = options.parse_args()
    sources = sorted(chosen.images_from.glob("*.jp*g"))
    if not sources:
        options.error(f"no JPEGs in {chosen.images_from}")

    import apache_beam as beam

    from components.example_gen.ingest import ingest
    from components.settings import LOCAL_BEAM_ARGS
    from marco_model.preprocessing import decode

    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "set"
        folder.mkdir()
        images = write_set(sources, folder, chosen.count)
        attempts = itertools.count()

        def read_check_write(path: Path = folder) -> None:
            output = f"{scratch}/{next(attempts)}"
            pipeline = beam.Pipeline(argv=list(chosen.beam or LOCAL_BEAM_ARGS))
            summary = ingest([str(path)], f"{output}/examples", f"{output}/quarantine", None, lambda: pipeline)
            if summary["quarantined"]:
                raise RuntimeError(f"the set should be sound: {summary['reasons']}")

        def decode_only(encoded: Sequence[bytes] = images) -> None:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(decode, encoded, chunksize=8):
                    pass

        small = Path(scratch) / "small"
        small.mkdir()
        write_set(sources, small, 20)
        read_check_write(small)
        decode_only(images[:20])
        turns: dict[str, list[float]] = {"ours": [], "peer": []}
        for number in range(chosen.rounds):
            for name, work in (("ours", read_check_write), ("peer", decode_only)):
                turns[name].append(chosen.count / seconds(work))
                print(f"round {number + 1}, {name}: {turns[name][-1]:.1f} images/s", file=sys.stderr, flush=True)
        report(statistics.median(turns["ours"]), statistics.median(turns["peer"]), f"images/s, {threads} cores")


if __name__ == "__main__":
    main()
