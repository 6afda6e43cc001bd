"""`marco predict` against the published graph of 2018 on the same files.

Ours is everything that the command does once its model is loaded: reading and checking the files, scoring, writing the
CSV. The peer is the published SavedModel in TensorFlow, given the bytes of the same real-sized files in batches of the
same size, one after another. Both are loaded and warmed up beforehand, then take turns; each figure is the median of
the rounds.

    python -m benchmarks.predict
"""

from pathlib import Path

import numpy as np
from PIL import Image

import benchmarks
from marco_model import labels, load, model_directory, saved_model, weights
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


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports, in seconds for all images."""
    parser = benchmarks.parser(__doc__, rounds=3, images="folder of JPEGs to make variants of")
    parser.add_argument("--count", type=int, default=200, help="images to score")
    parser.add_argument("--batch-size", type=int, default=8, help="images scored at once, on both sides")
    parser.add_argument("--scale", type=int, default=1, help="enlarge the images; 2 makes 2560x1920 of MARCO's")
    options = parser.parse_args(arguments)
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
        figures = benchmarks.medians(score_ours, score_published, options.rounds)
    benchmarks.report(*figures, f"seconds for {len(files)} images")


if __name__ == "__main__":
    main()
