"""`marco predict` against the published graph, on the same real-sized image files.

Ours is everything that `marco predict` does once its model is loaded: reading and checking the files, scoring, writing
the CSV. The peer is the published SavedModel, given the bytes of the same files in batches of the same size, one after
another. Both are loaded and warmed up beforehand, then take turns; each figure is the median of the rounds.

    python -m benchmarks.predict
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import report, seconds

IMAGES = Path(__file__).parents[1] / "tests" / "data" / "images"
"""Six real images of 1280x960 pixels."""


def write_variants(sources: Sequence[Path], directory: Path, count: int) -> list[Path]:
    """Writes `count` different JPEGs of the sources' size: rolled, mirrored, brighter or darker, always the same."""
    from PIL import Image

    random = np.random.default_rng(0)
    files = []
    for index in range(count):
        pixels = np.asarray(Image.open(sources[index % len(sources)]).convert("RGB"))
        pixels = np.roll(pixels, random.integers(0, pixels.shape[1]), axis=1)[:, :: random.choice([-1, 1])]
        pixels = np.clip(pixels * random.uniform(0.85, 1.15), 0, 255).astype(np.uint8)
        files.append(directory / f"drop_{index:04d}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=90)
    return files


def main() -> None:
    """Measures and reports, in seconds for all images."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path, default=IMAGES, help="folder of JPEGs to make variants of")
    options.add_argument("--count", type=int, default=200, help="images to score")
    options.add_argument("--rounds", type=int, default=3, help="turns for each side")
    options.add_argument("--batch-size", type=int, default=8, help="images scored at once, on both sides")
    chosen = options.parse_args()
    sources = sorted(chosen.images.glob("*.jp*g"))
    if not sources:
        options.error(f"no JPEGs in {chosen.images}")

    from marco_model.load import load
    from marco_model.model_directory import published_directory
    from marco_model.weights import export_published
    from marco_scoring.prediction import predict

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = write_variants(sources, folder, chosen.count)
        export_published(folder / "model")
        ours, peer = load(folder / "model"), load(published_directory())

        def predict_files() -> None:
            predict(ours, files, folder / "scores.csv", chosen.batch_size)

        def published_graph() -> None:
            for start in range(0, len(files), chosen.batch_size):
                peer.score([path.read_bytes() for path in files[start : start + chosen.batch_size]])

        for classifier in (ours, peer):
            classifier.score([path.read_bytes() for path in files[: chosen.batch_size]])
        ours_seconds, peer_seconds = [], []
        for turn in range(chosen.rounds):
            ours_seconds.append(seconds(predict_files))
            peer_seconds.append(seconds(published_graph))
            print(f"round {turn + 1}: ours {ours_seconds[-1]:.1f} s, peer {peer_seconds[-1]:.1f} s", file=sys.stderr)
    report(statistics.median(ours_seconds), statistics.median(peer_seconds), f"seconds for {len(files)} images")


if __name__ == "__main__":
    main()
