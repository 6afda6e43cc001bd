"""What share of pictures unlike the training pictures a model flags, at the limit that keeps a share of ordinary ones.

    python -m benchmarks.unknown --model runs/local/models/1

Ordinary are synthetic drops that no training saw, half of which set the limit (`--kept`, 0.95). Planted are, each made
of the other half: black, blank, out of focus, as under ultraviolet light, and photographs of other things (two that
scikit-learn brings, in parts). Ours is the smallest share flagged of a kind, the peer the share
of ordinary pictures flagged. The table goes to stderr, with the share flagged in each folder of `--photographs`.
"""

import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from sklearn import datasets

import benchmarks
from marco_data import image_files, synthetic
from marco_model import load, novelty, pixels

Planted = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Makes a picture, uint8 [height, width, 3], of an ordinary one."""


def black(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A picture without light: the camera's noise alone."""
    return np.abs(draw.normal(0, 2, image.shape)).astype(np.uint8)


def blank(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A picture of one shade, with noise."""
    return np.clip(draw.normal(draw.uniform(60, 220), 2, image.shape), 0, 255).astype(np.uint8)


def out_of_focus(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The picture with a blur of 2 to 4 hundredths of its shorter side."""
    sigma = draw.uniform(0.02, 0.04) * min(image.shape[:2])
    return ndimage.gaussian_filter(image, (sigma, sigma, 0))


def ultraviolet(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The picture as fluorescence: dark, with what differs from its surroundings bright in blue and violet."""
    grey = image.mean(axis=2)
    glow = np.clip(np.abs(grey - ndimage.gaussian_filter(grey, 8)) / 40, 0, 1)
    colour = np.array([draw.uniform(60, 140), draw.uniform(20, 80), 255])
    return np.clip(glow[..., None] * colour + draw.normal([12, 6, 25], 2, image.shape), 0, 255).astype(np.uint8)


def elsewhere(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A part of a photograph of a temple or of a flower."""
    photograph = _photographs()[draw.integers(2)]
    side = int(draw.integers(200, min(photograph.shape[:2])))
    top, left = (int(draw.integers(0, length - side + 1)) for length in photograph.shape[:2])
    part = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.asarray(part.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC))


@functools.cache
def _photographs() -> list[np.ndarray]:
    return [np.asarray(image) for image in datasets.load_sample_images().images]


KINDS: dict[str, Planted] = {
    "black": black,
    "blank": blank,
    "out of focus": out_of_focus,
    "ultraviolet": ultraviolet,
    "photograph": elsewhere,
}


def jpeg(image: np.ndarray) -> bytes:
    """Returns a picture, uint8 [height, width, 3], as JPEG."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=90)
    return content.getvalue()


def describe(classifier: load.LoadedClassifier, encoded: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features and the picture statistics of encoded images."""
    statistics = [novelty.picture_statistics(classifier.images([image])[0].transpose(2, 0, 1)) for image in encoded]
    return classifier.embed(encoded), np.stack(statistics)


def flagged(reference: novelty.Reference, described: tuple[np.ndarray, np.ndarray], encoded: list[bytes]) -> float:
    """Returns the share of images that are unknown, or that have a flag for their pixels alone."""
    by_pixels = np.array([bool(pixels.flag(image)) for image in encoded])
    return float(((reference.novelty(*described) > 1) | by_pixels).mean())


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports, as shares."""
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--model", required=True, help="a model that `marco run` trained on synthetic drops")
    parser.add_argument("--count", type=int, default=300, help="ordinary pictures that set the limit, and as many more")
    parser.add_argument("--shorter-side", type=int, default=240, help="of the drops, as in the preset local")
    parser.add_argument("--seed", type=int, default=77, help="of drops that the training did not see")
    parser.add_argument("--kept", type=float, default=0.95, help="share of ordinary pictures below the limit")
    parser.add_argument("--photographs", type=Path, help="folder of folders of further pictures")
    options = parser.parse_args(arguments)
    classifier = load.open_classifier(options.model)
    assert classifier.reference, "the model has no reference"
    settings = synthetic.Settings(seed=options.seed, shorter_side=options.shorter_side)
    drops = [encoded for encoded, _ in benchmarks.draw(2 * options.count, settings)]
    first, second = drops[: options.count], drops[options.count :]
    reference = novelty.limited(classifier.reference, *describe(classifier, first), options.kept)
    draw = np.random.default_rng(options.seed)
    shares = {"ordinary": flagged(reference, describe(classifier, second), second)}
    for name, plant in KINDS.items():
        made = [jpeg(plant(pixels.decode(image), draw)) for image in second]
        shares[name] = flagged(reference, describe(classifier, made), made)
    for name, share in shares.items():
        benchmarks.note(f"{name:20} {share:7.1%} flagged")
    for folder in sorted(options.photographs.iterdir()) if options.photographs else ():
        files = image_files.find_images([folder]).files if folder.is_dir() else []
        if files:
            encoded = [image_files.encoded_image(path) for path in files]
            share = flagged(reference, describe(classifier, encoded), encoded)
            benchmarks.note(f"{folder.name:20} {share:7.1%} flagged of {len(encoded)}")
    planted = [share for name, share in shares.items() if name != "ordinary"]
    benchmarks.report(min(planted), shares["ordinary"], "share flagged")


if __name__ == "__main__":
    main()
