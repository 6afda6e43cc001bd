"""What the methods against domain shift gain away from home, and what raw labels gain, on synthetic drops.

    python -m benchmarks.heads shift --images 800 --seeds 3
    python -m benchmarks.heads raw --images 400 --seeds 3

`shift`: the pictures of one institution are given another lamp and lens (`shifted`). Each method trains the small
network of the preset `local` on the labels of the other institutions, and is judged on the same unseen drops of both.
`left out` never sees the institution; `images alone` sees its pictures without labels, which reaches batch norm only;
`adversarial` learns from them not to tell sources apart; `colour` sees none of them and distorts colours more. Ours is
the accuracy away of the last of `--methods`, the peer that of the first.

`raw`: ours is the accuracy on unseen drops with a head of raw labels, the kinds that were drawn, the peer without it.

Tables go to stderr, each difference with its interval at 95 %, paired by image. A training takes some three minutes on
two cores.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import cv2
import keras
import numpy as np

import benchmarks
from benchmarks import drops
from components import significance
from marco_data import contract, synthetic
from marco_model import heads, labels, network, preprocessing, record_index, record_targets, training
from pipelines import configuration

METHODS: dict[str, tuple[str, ...]] = {
    "left out": (),
    "images alone": ("recipe.unlabelled=[{away}]",),
    "adversarial": ("recipe.unlabelled=[{away}]", "recipe.adversarial_weight=1"),
    "colour": ("recipe.colour_distortion=2.5",),
}
RAW_HEAD = "recipe.raw_weight=0.5"
# Of the images to train on, kept out to choose the best weights by.
_VALIDATION = 0.15
_UNSEEN = 1200


@dataclasses.dataclass(frozen=True)
class Picture:
    """A drop as training and scoring read it: JPEG, class, institution and raw label."""

    jpeg: bytes
    label: int
    institution: str
    raw: int


def shifted(image: np.ndarray) -> np.ndarray:
    """Returns a photograph, uint8 [height, width, 3] RGB, as of another lamp, camera and lens.

    Bluish light of little contrast, and a soft lens that darkens towards the corners.
    """
    height, width = image.shape[:2]
    values = cv2.GaussianBlur(image, (0, 0), 0.004 * min(height, width)).astype(np.float32) / 255.0
    values = np.array([0.15, 0.3, 0.55], np.float32) + np.array([0.3, 0.45, 0.45], np.float32) * values
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    values *= (1.0 - 0.25 * (rows**2 + columns**2)[..., None]).astype(np.float32)
    return np.asarray(np.clip(values * 255.0, 0, 255), np.uint8)


def draw(count: int, seed: int, away: str, loaded: configuration.Configuration) -> list[Picture]:
    """Draws drops as the Transform step leaves them, those of the institution `away` shifted."""
    side, quality = loaded.transform.shorter_side, loaded.transform.quality
    pictures = []
    for jpeg, plan in benchmarks.draw(count, synthetic.Settings(seed=seed, shorter_side=240)):
        institution = plan.imager.institution
        if institution == away:
            image = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]
            _, encoded = cv2.imencode(".jpg", shifted(image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            jpeg = encoded.tobytes()
        pictures.append(Picture(preprocessing.shrink(jpeg, side, quality).numpy(), plan.shown, institution, plan.kind))
    return pictures


def train(pictures: Sequence[Picture], loaded: configuration.Configuration) -> keras.Model:
    """Returns the configuration's network, trained on the pictures, with its best weights."""
    recipe, boundary = loaded.recipe, round(len(pictures) * _VALIDATION)
    with benchmarks.scratch() as folder:
        validation, trained = (
            record_index.read_index(_write(folder / name, split))
            for name, split in (("validation", pictures[:boundary]), ("train", pictures[boundary:]))
        )
        targets = record_targets.find(recipe, trained.files)
        model = network.build(loaded.network, num_classes=len(labels.CLASSES), seed=recipe.seed)
        if targets.raw_labels:
            model = heads.with_raw_head(model, len(targets.raw_labels), recipe.seed)
        training.train(
            model,
            recipe,
            input_size=loaded.network.input_size,
            train_records=dataclasses.replace(trained, targets=targets),
            validation_records=dataclasses.replace(validation, targets=targets),
            checkpoint_directory=str(folder / "checkpoints"),
        )
    return model


def _write(folder: pathlib.Path, pictures: Sequence[Picture]) -> list[str]:
    examples = []
    for number, picture in enumerate(pictures):
        example = benchmarks.example(picture.jpeg, number, picture.label, **{contract.INSTITUTION: picture.institution})
        parsed = contract.parse_example(example)
        parsed.features.feature[contract.LABEL_RAW].int64_list.value[:] = [picture.raw]
        examples.append(parsed.SerializeToString())
    return benchmarks.write_records(folder, examples, shards=1)


def right(model: keras.Model, pictures: Sequence[Picture], size: int) -> np.ndarray:
    """Returns which pictures the network names rightly, bool [pictures]."""
    named = drops.classify(model, [picture.jpeg for picture in pictures], size)
    return np.asarray(named == [picture.label for picture in pictures])


def difference(ours: np.ndarray, peer: np.ndarray) -> str:
    """Returns the difference of two shares of right pictures, bool [pictures], in points, with its interval."""
    pairs = significance.pairs(ours, peer)
    low, high, _ = significance.paired_interval(pairs, 0.95)
    return f"{100 * pairs.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def shift(arguments: list[str]) -> None:
    """Measures and reports, in accuracy away."""
    parser = _parser(800)
    parser.add_argument("--away", default="Merck", choices=drops.INSTITUTIONS, help="(default Merck)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["left out", "adversarial"])
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {"home": [], "away": []} for name in options.methods}
    for seed in range(options.seeds):
        loaded = configuration.load("local", options.set)
        pictures = draw(options.images + _UNSEEN, seed, options.away, loaded)
        unseen = {
            "home": [picture for picture in pictures[options.images :] if picture.institution != options.away],
            "away": [picture for picture in pictures[options.images :] if picture.institution == options.away],
        }
        for name in options.methods:
            changes = [change.format(away=options.away) for change in METHODS[name]]
            loaded = configuration.load("local", [f"recipe.seed={seed}", *changes, *options.set])
            seen = [p for p in pictures[: options.images] if p.institution != options.away or loaded.recipe.unlabelled]
            model = train(seen, loaded)
            for place, judged in unseen.items():
                found[name][place].append(right(model, judged, loaded.network.input_size))
            _note(f"seed {seed}, {name}", {place: parts[-1:] for place, parts in found[name].items()}, {})
    first = {place: np.concatenate(parts) for place, parts in found[options.methods[0]].items()}
    for name, parts in found.items():
        _note(name, parts, first)
    ours = np.concatenate(found[options.methods[-1]]["away"])
    benchmarks.report(float(ours.mean()), float(first["away"].mean()), "accuracy")


def raw(arguments: list[str]) -> None:
    """Measures and reports, in accuracy."""
    options = _parser(400).parse_args(arguments)
    found: dict[str, list[np.ndarray]] = {"without": [], "raw head": []}
    for seed in range(options.seeds):
        pictures = draw(options.images + _UNSEEN, seed, "", configuration.load("local", options.set))
        for name, parts in found.items():
            changes = [RAW_HEAD] if name == "raw head" else []
            loaded = configuration.load("local", [f"recipe.seed={seed}", *changes, *options.set])
            model = train(pictures[: options.images], loaded)
            parts.append(right(model, pictures[options.images :], loaded.network.input_size))
            _note(f"seed {seed}, {name}", {"unseen": parts[-1:]}, {})
    ours, peer = (np.concatenate(found[name]) for name in ("raw head", "without"))
    _note("raw head", {"unseen": [ours]}, {"unseen": peer})
    benchmarks.report(float(ours.mean()), float(peer.mean()), "accuracy")


def _parser(images: int) -> argparse.ArgumentParser:
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--images", type=int, default=images, help=f"to train on (default {images})")
    parser.add_argument("--seeds", type=int, default=3, help="sets of drops, each with first weights (default 3)")
    parser.add_argument("--set", action="append", default=[], help="change a value of the preset: recipe.steps=20")
    return parser


def _note(name: str, parts: dict[str, list[np.ndarray]], peer: dict[str, np.ndarray]) -> None:
    texts = []
    for place, arrays in parts.items():
        joined = np.concatenate(arrays)
        text = f"{place} {100 * joined.mean():.1f} % of {len(joined)}"
        texts.append(f"{text}, {difference(joined, peer[place])}" if place in peer else text)
    benchmarks.note(f"{name:24s} {'; '.join(texts)}")


if __name__ == "__main__":
    benchmarks.choose(shift=shift, raw=raw)
