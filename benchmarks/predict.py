"""`marco predict` against the published graph of 2018 on the same files.

Ours is everything that the command does once its model is loaded: reading and checking the files, scoring, writing the
CSV. The peer is the published SavedModel in TensorFlow, given the bytes of the same real-sized files in batches of the
same size, one after another. Both are loaded and warmed up beforehand, then take turns; each figure is the median of
the rounds. Other work on the machine lengthens both; `processor` in the report is the ratio of their processor times.

`--memory` measures instead what the process holds, in MB, after a tenth of small pictures (the peer) and after all.

    python -m benchmarks.predict
    python -m benchmarks.predict --memory --count 10000
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import benchmarks
from marco_model import labels, load, model_directory
from marco_scoring import prediction


def write_variants(sources: list[Path], directory: Path, count: int, scale: int = 1) -> list[Path]:
    """Writes `count` different JPEGs of `scale` times the sources' size: rolled, mirrored, brighter or darker."""
    random = np.random.default_rng(0)
    files = []
    for index in range(count):
        image = Image.open(sources[index % len(sources)]).convert("RGB")
        pixels = np.asarray(image.resize((image.width * scale, image.height * scale)))
        pixels = np.roll(pixels, random.integers(0, pixels.shape[1]), axis=1)[:, :: random.choice([-1, 1])]
        pixels = np.clip(pixels * random.uniform(0.85, 1.15), 0, 255).astype(np.uint8)
        files.append(directory / f"drop_{index:04d}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=90)
    return files


def write_distinct(sources: list[Path], directory: Path, count: int) -> list[Path]:
    """Writes `count` JPEGs of 320x240 pixels, of which no two have the same bytes."""
    small = []
    for source in sources:
        Image.open(source).convert("RGB").resize((320, 240)).save(directory / "small.jpg")
        small.append((directory / "small.jpg").read_bytes())
    files = [directory / f"{number:06d}.jpg" for number in range(count)]
    for number, (file, jpeg) in enumerate(zip(files, itertools.cycle(small), strict=False)):
        file.write_bytes(benchmarks.distinct(jpeg, number))
    return files


def measure_memory(sources: list[Path], count: int) -> None:
    """Scores `count` pictures and reports the process's resident memory after a tenth of them and after all."""
    resident: dict[int, float] = {}
    with benchmarks.scratch() as folder:
        classifier = load.open_published_classifier()
        files = write_distinct(sources, folder, count)
        done = itertools.count(1)

        def observe(*result: object) -> None:
            if (number := next(done)) % max(1, count // 10) == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                resident[number] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
                benchmarks.note(f"{number} images: {resident[number]:.1f} MB")

        prediction.predict(classifier, files, folder / "scores.csv", observe=observe)
    first, *_, last = resident.values()
    benchmarks.report(last, first, f"MB after {count} images, and after a tenth of them")


def measure_speed(options: argparse.Namespace) -> None:
    """Scores the same files by both sides and reports the seconds for all of them."""
    from marco_model import saved_model, weights

    with benchmarks.scratch() as folder:
        files = write_variants(options.images, folder, options.count, options.scale)
        weights.export_published(folder / "model")
        ours = load.open_classifier(folder / "model")
        peer = saved_model.SavedModel(model_directory.published_directory(), labels.CLASSES, published=True)

        def score_ours() -> None:
            prediction.predict(ours, files, folder / "scores.csv", options.batch_size)

        def score_published() -> None:
            for batch in benchmarks.batches(files, options.batch_size):
                peer.score([path.read_bytes() for path in batch])

        first = [path.read_bytes() for path in files[: options.batch_size]]
        for score in (ours.score, peer.score):
            score(first)
        used: dict[Callable[[], None], list[float]] = {score_ours: [], score_published: []}

        def seconds(score: Callable[[], None]) -> float:
            begun = time.process_time()
            passed = benchmarks.seconds(score)
            used[score].append(time.process_time() - begun)
            return passed

        figures = benchmarks.medians(score_ours, score_published, options.rounds, figure=seconds)
    ratio = statistics.median(used[score_ours]) / statistics.median(used[score_published])
    benchmarks.report(*figures, f"seconds for {len(files)} images", processor=round(ratio, 4))


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    parser = benchmarks.parser(__doc__, rounds=3, images="folder of JPEGs to make variants of")
    parser.add_argument("--count", type=int, default=200, help="images to score")
    parser.add_argument("--batch-size", type=int, default=8, help="images scored at once, on both sides")
    parser.add_argument("--scale", type=int, default=1, help="enlarge the images; 2 makes 2560x1920 of MARCO's")
    parser.add_argument("--memory", action="store_true", help="measure the memory of our side instead")
    options = parser.parse_args(arguments)
    if options.memory:
        measure_memory(options.images, options.count)
    else:
        measure_speed(options)


if __name__ == "__main__":
    main()
