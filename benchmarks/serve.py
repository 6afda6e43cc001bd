"""Single images of the released network as `marco serve` scores them, and by the published graph of 2018.

Ours is the network on ONNX Runtime in the server's threads: an image that is alone by all of them, those of a request
by one each. The peer is the published graph through its signature `serving_default`, in TensorFlow. Both are given the
bytes of the same real images of 1280x960 pixels, one image per request, taking turns in one process; each figure is the
median of all requests. Written to stderr: the same for requests of 8 and 32 images, for the exported SavedModel, which
other servers load, in our place, and for how many of the real images and of `--drops` synthetic ones of full size the
served class equals that of the Keras model (a difference is an error) and of the published graph.

    python -m benchmarks.serve
"""

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

import benchmarks
from benchmarks import drops
from marco_data import synthetic
from marco_model import labels, load, model_directory, pixels, saved_model, weights
from marco_scoring.serving import classify

Score = Callable[[list[bytes]], np.ndarray]
"""From encoded images to their classes, text [images]."""


def open_server(directory: Path) -> Score:
    """Returns the function that scores each image of a request as `marco serve` does."""
    threads = pixels.cores()
    classifier = load.open_classifier(directory, threads)
    classify.warm_up(classifier, threads)
    pool = ThreadPoolExecutor(threads)

    def score(encoded: list[bytes]) -> np.ndarray:
        outcomes = pool.map(functools.partial(classify.classify, classifier), encoded)
        return np.array([classifier.classes[int(np.argmax(outcome.scores))] for outcome in outcomes])  # type: ignore[union-attr]

    return score


def open_signature(directory: Path) -> Score:
    """Returns the function that calls `serving_default` of the SavedModel in `directory` in TensorFlow."""
    with saved_model.without_warnings():
        saved = tf.saved_model.load(str(directory))
    signature = saved.signatures["serving_default"]

    def score(encoded: list[bytes]) -> np.ndarray:
        outputs = signature(image_bytes=tf.constant(encoded))
        # The published graph sorts each row by score. `saved` keeps the model alive: a signature alone does not.
        best = outputs["classes"][:, 0] if saved and "classes" in outputs else outputs["class"]
        return best.numpy().astype(str)

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
    served, published = (np.concatenate([score(batch) for batch in batches]) for score in (ours, peer))
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
        ours, exported = open_server(folder / "model"), open_signature(folder / "model")
    peer = open_signature(model_directory.published_directory())
    requests = [[image] for image in encoded]
    alone = medians(ours, peer, requests, options.rounds)
    own, other = medians(exported, peer, requests, max(options.rounds // 2, 1))
    benchmarks.note(f"the exported SavedModel, one image: {own:.3f} s; peer {other:.3f} s; ratio {own / other:.3f}")
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
