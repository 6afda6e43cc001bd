"""What the methods against domain shift gain away from home, and what raw labels gain, on synthetic drops.

    python -m benchmarks.heads shift
    python -m benchmarks.heads institutions
    python -m benchmarks.heads raw --images 400

`shift`: the pictures of one institution are given another lamp and lens (`shifted`). Each method trains the small
network of `benchmarks.batch_size` on the labels of the other institutions, and is judged on unseen drops of both.
`left out` never sees the institution; `images alone` sees its pictures without labels, which reaches batch norm only;
`adversarial` learns from them not to tell sources apart; `colour` sees none of them and distorts colours more. Ours is
the accuracy away of the last of `--methods`, the peer that of the first.

`institutions`: the same for each institution in turn, as it was drawn. Ours and the peer are over all of them.

`raw`: ours is the accuracy on unseen drops with a head of raw labels, the kinds that were drawn, the peer without it.

All train on the same drops, from the weights and in the order of each seed. Tables go to stderr, each difference with
its interval at 95 %, paired by image; a picture counts once for each seed and institution that is left out, so that
intervals are somewhat too narrow. Drawing takes two minutes of two cores, a training about one of a core, and
`institutions` an hour.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import keras
import numpy as np

import benchmarks
from benchmarks import batch_size, drops
from components import significance
from marco_data import contract, synthetic
from marco_model import example_files, layers, training
from marco_model.recipe import Recipe

RECIPE = Recipe(
    steps=800,
    batch_size=64,
    learning_rate=0.001,
    epsilon=1e-5,
    average_decay=0.98,
    evaluate_every=100,
    checkpoint_every=800,
    patience=8,
)
"""A small epsilon, as in the preset `local`, for a run of some hundred steps from random weights."""
METHODS: dict[str, dict[str, Any]] = {
    "left out": {},
    "images alone": {"unlabelled": True},
    "adversarial": {"unlabelled": True, "adversarial_weight": 0.03},
    "colour": {"colour_distortion": 2.5},
}
"""What each method changes of the recipe; `unlabelled` stands for the institution away."""
RAW: dict[str, dict[str, Any]] = {"without": {}, "raw head": {"raw_weight": 0.5}}
# Of the drops to train on, kept out to choose the best weights by.
_VALIDATION = 0.1
_UNSEEN = 1500


@dataclasses.dataclass(frozen=True)
class Picture:
    """A drop as training and scoring read it: JPEG, class, institution and raw label."""

    jpeg: bytes
    label: int
    institution: str
    raw: int


def shifted(image: np.ndarray) -> np.ndarray:
    """Returns a photograph, uint8 [height, width, 3] RGB, as of another lamp and lens.

    Bluish light of less contrast, and a soft lens that darkens towards the corners.
    """
    height, width = image.shape[:2]
    values = cv2.GaussianBlur(image, (0, 0), 0.004 * min(height, width)).astype(np.float32) / 255.0
    values = np.array([0.0, 0.1, 0.4], np.float32) + np.array([0.3, 0.6, 0.6], np.float32) * values
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    values *= (1.0 - 0.1 * (rows**2 + columns**2)[..., None]).astype(np.float32)
    return np.asarray(np.clip(values * 255.0, 0, 255), np.uint8)


def draw(count: int, seed: int, away: str = "") -> list[Picture]:
    """Draws drops as small as they are trained on, those of the institution `away` shifted."""
    pictures = []
    for jpeg, plan in benchmarks.draw(count, synthetic.Settings(seed=seed, shorter_side=batch_size.DRAWN_SIDE)):
        if plan.imager.institution == away:
            image = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]
            quality = [cv2.IMWRITE_JPEG_QUALITY, batch_size.QUALITY]
            jpeg = cv2.imencode(".jpg", shifted(image)[..., ::-1], quality)[1].tobytes()
        pictures.append(Picture(batch_size.shrink(jpeg), plan.shown, plan.imager.institution, plan.kind))
    return pictures


def train(pictures: Sequence[Picture], recipe: Recipe) -> keras.Model:
    """Returns the small network, trained on the pictures, with its best weights."""
    boundary = round(len(pictures) * _VALIDATION)
    with benchmarks.scratch() as folder:
        validation, trained = (
            example_files.read_index(_write(folder / name, split))
            for name, split in (("validation", pictures[:boundary]), ("train", pictures[boundary:]))
        )
        targets = example_files.find_targets(recipe, trained.files)
        model = batch_size.small_network(recipe.seed, batch_size.MOMENTUM)
        if targets.raw_labels:
            model = layers.with_raw_head(model, len(targets.raw_labels), recipe.seed)
        training.train(
            model,
            recipe,
            input_size=batch_size.SIZE,
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


def right(model: keras.Model, pictures: Sequence[Picture]) -> np.ndarray:
    """Returns which pictures the network names rightly, bool [pictures]."""
    named = drops.classify(model, [picture.jpeg for picture in pictures], batch_size.SIZE)
    return np.asarray(named == [picture.label for picture in pictures])


Found = Mapping[str, Mapping[str, list[np.ndarray]]]
"""Which pictures were named rightly: by arm and group of pictures, an array for each seed."""


def shift(arguments: list[str]) -> None:
    """Measures and reports, in accuracy away."""
    parser = _parser(2000)
    parser.add_argument("--away", default="Merck", choices=drops.INSTITUTIONS, help="(default Merck)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["left out", "adversarial"])
    options = parser.parse_args(arguments)
    pictures = draw(options.images + _UNSEEN, options.drops, options.away)
    _report(_leave_out(options.away, pictures, options), "away")


def institutions(arguments: list[str]) -> None:
    """Measures and reports, in accuracy away."""
    parser = _parser(4000)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["left out", "colour", "adversarial"])
    options = parser.parse_args(arguments)
    pictures = draw(options.images + _UNSEEN, options.drops)
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {"home": [], "away": []} for name in options.methods}
    for away in drops.INSTITUTIONS:
        benchmarks.note(f"without {away}:")
        by_method = _leave_out(away, pictures, options)
        _describe(by_method)
        for name, groups in by_method.items():
            for group, parts in groups.items():
                found[name][group] += parts
    benchmarks.note("all:")
    _report(found, "away")


def _leave_out(away: str, pictures: Sequence[Picture], options: argparse.Namespace) -> Found:
    """Returns what each of `--methods` names rightly at home and at the institution `away`, for each seed."""
    unseen = pictures[options.images :]
    groups = {
        "home": [picture for picture in unseen if picture.institution != away],
        "away": [picture for picture in unseen if picture.institution == away],
    }
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {"home": [], "away": []} for name in options.methods}
    for seed in options.seeds:
        for name in options.methods:
            changes = dict(METHODS[name], seed=seed)
            sees = changes.pop("unlabelled", False)
            recipe = dataclasses.replace(RECIPE, **changes, unlabelled=(away,) if sees else ())
            seen = [picture for picture in pictures[: options.images] if sees or picture.institution != away]
            model = train(seen, recipe)
            for group, judged in groups.items():
                found[name][group].append(right(model, judged))
            benchmarks.note(f"seed {seed}  {_figures(found[name], last=True)}  {name}")
    return found


def raw(arguments: list[str]) -> None:
    """Measures and reports, in accuracy."""
    options = _parser(400).parse_args(arguments)
    pictures = draw(options.images + _UNSEEN, options.drops)
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {"unseen": []} for name in RAW}
    for seed in options.seeds:
        for name, changes in RAW.items():
            model = train(pictures[: options.images], dataclasses.replace(RECIPE, **changes, seed=seed))
            found[name]["unseen"].append(right(model, pictures[options.images :]))
            benchmarks.note(f"seed {seed}  {_figures(found[name], last=True)}  {name}")
    _report(found, "unseen")


def _parser(images: int) -> argparse.ArgumentParser:
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--images", type=int, default=images, help=f"to train on (default {images})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights and order (0 1 2)")
    parser.add_argument("--drops", type=int, default=0, metavar="SEED", help="of the drops (default 0)")
    return parser


def _figures(groups: Mapping[str, list[np.ndarray]], last: bool = False) -> str:
    shares = {group: np.concatenate(parts[-1:] if last else parts).mean() for group, parts in groups.items()}
    return "  ".join(f"{group} {100 * share:.1f} %" for group, share in shares.items())


def _describe(found: Found) -> None:
    """Notes the shares right of each arm, and their differences to the first."""
    first = next(iter(found.values()))
    for name, groups in found.items():
        compared = {
            part: drops.difference(significance.pairs(np.concatenate(groups[part]), np.concatenate(first[part])))
            for part in groups
        }
        benchmarks.note(f"{name:14s} {_figures(groups)}  {compared if groups is not first else ''}")


def _report(found: Found, group: str) -> None:
    _describe(found)
    first, *_, last = found.values()
    ours, peer = (float(np.concatenate(groups[group]).mean()) for groups in (last, first))
    benchmarks.report(ours, peer, "accuracy")


if __name__ == "__main__":
    benchmarks.choose(shift=shift, institutions=institutions, raw=raw)
