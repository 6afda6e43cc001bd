"""The served model against the published graph: seconds for one image, and agreement of the classes.

Ours is the released network as `marco released` exports it, called through its signature `serving_default`; the peer is
the published SavedModel of 2018, called the same way. Both get the bytes of the same real images of 1280x960 pixels,
one image per request, taking turns in one process; each figure is the median of all requests.

Written to stderr: the same for requests of 8 and 32 images, and for how many of the real images and of `--drops`
synthetic ones of full size the served class equals that of the Keras model (a difference is an error) and of the
published graph.

    python -m benchmarks.serve
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report, seconds

IMAGES = Path(__file__).parents[1] / "tests" / "data" / "images"
"""Six real images of 1280x960 pixels."""
_BATCH = 16

Score = Callable[[Sequence[bytes]], dict[str, np.ndarray]]


def open_signature(directory: Path) -> Score:
    """Returns the function from encoded images to the outputs of `serving_default` of the SavedModel in `directory`."""
    import tensorflow as tf

    from marco_model.load import without_warnings

    with without_warnings():
        saved = tf.saved_model.load(str(directory))
    signature = saved.signatures["serving_default"]

    def score(encoded: Sequence[bytes]) -> dict[str, np.ndarray]:
        outputs: dict[str, Any] = signature(image_bytes=tf.constant(list(encoded)))
        # Keeps the model alive as well: a signature alone does not.
        return {name: tensor.numpy() for name, tensor in outputs.items()} if saved else {}

    return score


def medians(ours: Score, peer: Score, requests: Sequence[Sequence[bytes]], rounds: int) -> tuple[float, float]:
    """Returns the median seconds of a request to each; they take turns, and the first round is not counted."""
    durations: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for number, request in enumerate(requests):
            sides = list(zip((ours, peer), durations, strict=True))
            for score, side in sides if (turn + number) % 2 else reversed(sides):
                duration = seconds(lambda score=score, request=request: score(request))
                if turn:
                    side.append(duration)
    return statistics.median(durations[0]), statistics.median(durations[1])


def agreement(ours: Score, peer: Score, encoded: Sequence[bytes]) -> tuple[int, int]:
    """Returns for how many images the served class is the Keras model's, and the published graph's."""
    import tensorflow as tf

    from marco_model.labels import CLASSES
    from marco_model.preprocessing import evaluation_batch
    from marco_model.weights import published_network

    model = published_network()
    images = tf.function(lambda batch: evaluation_batch(batch, 599))
    names = np.array(CLASSES)
    keras_model = published = 0
    for start in range(0, len(encoded), _BATCH):
        batch = encoded[start : start + _BATCH]
        served = ours(batch)["class"].astype(str)
        logits = np.asarray(model(images(tf.constant(list(batch))), training=False))
        keras_model += int((served == names[logits.argmax(axis=1)]).sum())
        # The published graph sorts each row by score.
        published += int((served == peer(batch)["classes"][:, 0].astype(str)).sum())
    return keras_model, published


def synthetic(count: int) -> list[bytes]:
    """Returns `count` synthetic drops of full size as JPEGs."""
    from marco_data.synthetic import Settings
    from marco_data.synthetic.writer import jpegs

    return [jpeg for jpeg, _, _ in jpegs(list(range(count)), Settings(seed=0), 2)]


def main() -> None:
    """Measures and reports, in seconds for a request of one image."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=Path, default=IMAGES, help="folder of JPEGs to score")
    options.add_argument("--rounds", type=int, default=20, help="requests per image and side")
    options.add_argument("--drops", type=int, default=300, help="synthetic drops whose classes are compared")
    chosen = options.parse_args()
    encoded = [path.read_bytes() for path in sorted(chosen.images.glob("*.jp*g"))]
    if not encoded:
        options.error(f"no JPEGs in {chosen.images}")

    from marco_model.model_directory import published_directory
    from marco_model.weights import export_published

    with tempfile.TemporaryDirectory() as scratch:
        export_published(Path(scratch) / "model")
        ours, peer = open_signature(Path(scratch) / "model"), open_signature(published_directory())
    alone, peer_alone = medians(ours, peer, [[image] for image in encoded], chosen.rounds)
    for size in (8, 32):
        request = [encoded[index % len(encoded)] for index in range(size)]
        own, other = medians(ours, peer, [request], max(chosen.rounds // 4, 1))
        print(
            f"{size} images per request: ours {own:.3f} s, {size / own:.1f} images/s; peer {other:.3f} s, "
            f"{size / other:.1f} images/s; ratio {own / other:.3f}",
            file=sys.stderr,
        )
    compared = [*encoded, *synthetic(chosen.drops)]
    keras_model, published = agreement(ours, peer, compared)
    print(
        f"same class as the Keras model: {keras_model} of {len(compared)}; as the published graph: {published}",
        file=sys.stderr,
    )
    if keras_model != len(compared):
        sys.exit(f"the served model gives {len(compared) - keras_model} images another class than the Keras model")
    report(alone, peer_alone, "seconds for one image")


if __name__ == "__main__":
    main()
