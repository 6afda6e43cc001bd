"""Single images to the released network as `marco released` exports it, and to the published graph of 2018.

Both are called through their signature `serving_default` with the bytes of the same real images of 1280x960 pixels, one
image per request, taking turns in one process; each figure is the median of all requests. Written to stderr: the same
for requests of 8 and 32 images, and for how many of the real images and of `--drops` synthetic ones of full size the
served class equals that of the Keras model (a difference is an error) and of the published graph.

    python -m benchmarks.serve
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

import benchmarks
from benchmarks import drops
from marco_data import synthetic
from marco_model import labels, model_directory, saved_model, weights

Score = Callable[[list[bytes]], dict[str, np.ndarray]]


def open_signature(directory: Path) -> Score:
    """Returns the function from encoded images to the outputs of `serving_default` of the SavedModel in `directory`."""
    with saved_model.without_warnings():
        saved = tf.saved_model.load(str(directory))
    signature = saved.signatures["serving_default"]

    def score(encoded: list[bytes]) -> dict[str, np.ndarray]:
        outputs = signature(image_bytes=tf.constant(encoded))
        # Keeps the model alive as well: a signature alone does not.
        return {name: tensor.numpy() for name, tensor in outputs.items()} if saved else {}

    return score


def medians(ours: Score, peer: Score, requests: list[list[bytes]], rounds: int) -> tuple[float, float]:
    """Returns the median seconds of a request to each over rounds of all requests; the first round does not count."""

    def next_request(score: Score) -> Callable[[], object]:
        endless = itertools.cycle(requests)
        return lambda: score(next(endless))

    count = len(requests)
    return benchmarks.medians(next_request(ours), next_request(peer), rounds * count, warm_up=count, quiet=True)


def agreement(ours: Score, peer: Score, encoded: list[bytes]) -> tuple[int, int]:
    """Returns for how many images the served class is the Keras model's, and the published graph's."""
    batches = list(benchmarks.batches(encoded, 16))
    served = np.concatenate([ours(batch)["class"].astype(str) for batch in batches])
    # The published graph sorts each row by score.
    published = np.concatenate([peer(batch)["classes"][:, 0].astype(str) for batch in batches])
    keras_model = np.array(labels.CLASSES)[drops.classify(weights.published_network(), encoded, 599)]
    return int((served == keras_model).sum()), int((served == published).sum())


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports, in seconds for a request of one image."""
    parser = benchmarks.parser(__doc__, rounds=20, images="folder of JPEGs to score")
    parser.add_argument("--drops", type=int, default=300, help="synthetic drops whose classes are compared")
    options = parser.parse_args(arguments)
    encoded = [path.read_bytes() for path in options.images]
    with benchmarks.scratch() as folder:
        weights.export_published(folder / "model")
        ours = open_signature(folder / "model")
    peer = open_signature(model_directory.published_directory())
    alone = medians(ours, peer, [[image] for image in encoded], options.rounds)
    for size in (8, 32):
        request = list(itertools.islice(itertools.cycle(encoded), size))
        own, other = medians(ours, peer, [request], max(options.rounds // 4, 1))
        benchmarks.note(
            f"{size} images per request: ours {own:.3f} s, {size / own:.1f} images/s; peer {other:.3f} s, "
            f"{size / other:.1f} images/s; ratio {own / other:.3f}"
        )
    compared = [*encoded, *(jpeg for jpeg, _ in benchmarks.draw(options.drops, synthetic.Settings(seed=0)))]
    keras_model, published = agreement(ours, peer, compared)
    count = len(compared)
    benchmarks.note(f"same class as the Keras model: {keras_model} of {count}; as the published graph: {published}")
    if keras_model != count:
        raise SystemExit(f"the served model gives {count - keras_model} images another class than the Keras model")
    benchmarks.report(*alone, "seconds for one image")


if __name__ == "__main__":
    main()
