"""ExampleGen against bare decoding: what reading, checking and writing cost on top of it.

Ours is the whole ingest of a set of MARCO shards: framing and checksums, every check, digests, the search for
duplicates, the output and its renaming, Beam's own start included. The peer decodes the same images, held in memory,
with the same decoder in as many threads. Both warm up first, then take turns; each figure is the median of the rounds.

    python -m benchmarks.ingest
"""

import concurrent.futures
from pathlib import Path

import apache_beam as beam

import benchmarks
from components import settings
from components.example_gen import ingest
from marco_data import name_tables, tfrecord
from marco_model import labels, preprocessing

SHARD_IMAGES = 500


def write_set(sources: list[Path], folder: Path, count: int) -> list[bytes]:
    """Writes `count` records made of the sources to shards, one of them for evaluation; returns the encoded images."""
    folder.mkdir()
    name_tables.write_tables(folder)
    encoded = [path.read_bytes() for path in sources]
    images = [benchmarks.distinct(encoded[number % len(encoded)], number) for number in range(count)]
    for number, batch in enumerate(benchmarks.batches(list(enumerate(images)), SHARD_IMAGES)):
        name = f"{'train' if number else 'test'}-{number:05d}-of-{count // SHARD_IMAGES:05d}"
        examples = (benchmarks.example(jpeg, index, index % len(labels.CLASSES)) for index, jpeg in batch)
        (folder / name).write_bytes(b"".join(map(tfrecord.frame, examples)))
    return images


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports, in images a second on all cores."""
    parser = benchmarks.parser(__doc__, rounds=3)
    folder_help = "folder of JPEGs to make records of"
    parser.add_argument("--images-from", type=benchmarks.jpeg_files, default=benchmarks.IMAGES, help=folder_help)
    parser.add_argument("--count", type=int, default=3000, help="records in the set")
    parser.add_argument("--beam", nargs="*", help="Beam options; by default those of local runs")
    options = parser.parse_args(arguments)
    threads = preprocessing.cores()

    def ingest_set(path: Path, output: Path) -> None:
        pipeline = beam.Pipeline(argv=list(options.beam or settings.LOCAL_BEAM_ARGS))
        summary = ingest.ingest([str(path)], f"{output}/examples", f"{output}/quarantine", None, lambda: pipeline)
        if summary["quarantined"]:
            raise RuntimeError(f"the set should be sound: {summary['reasons']}")

    def decode(encoded: list[bytes]) -> None:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(preprocessing.decode, encoded, chunksize=8):
                pass

    with benchmarks.scratch() as folder:
        decode(write_set(options.images_from, folder / "small", 20))
        ingest_set(folder / "small", folder / "warm-up")
        images = write_set(options.images_from, folder / "set", options.count)
        outputs = (folder / str(number) for number in range(options.rounds))
        figures = benchmarks.medians(
            lambda: ingest_set(folder / "set", next(outputs)),
            lambda: decode(images),
            options.rounds,
            figure=lambda work: options.count / benchmarks.seconds(work),
        )
    benchmarks.report(*figures, f"images/s, {threads} cores")


if __name__ == "__main__":
    main()
