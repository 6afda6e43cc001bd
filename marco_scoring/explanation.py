"""Explains the scores of image files: an overlay an image, and a CSV of what was explained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marco_data.image_files import encoded_image
from marco_data.progress import progress
from marco_model.errors import InputError
from marco_scoring.prediction import result_tables

if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier

TABLE = "explained.csv"
COLUMNS = ("path", "class", "score", "output")


@dataclasses.dataclass(frozen=True)
class Options:
    """How to explain: the fields of `marco_model.attribution.smoothgrad`, and what to write.

    `class_name`: the class to explain; None for each image's predicted one. `raw`: write the attributions too.
    """

    samples: int
    noise: float
    batch_size: int
    seed: int = 0
    class_name: str | None = None
    raw: bool = False


def explain(classifier: LoadedClassifier, files: Sequence[Path], directory: Path, options: Options) -> int:
    """Writes `NAME.png` for each file into `directory`, and `explained.csv`; returns how many files gave none.

    The overlay shows what the network sees: the square, resized, perhaps shrunk image. With `options.raw`, `NAME.npy`
    holds the attribution, float32 [size, size]. Files that failed are in `explained.errors.csv` (`path,reason`).

    Raises InputError for an unknown class, or for files that lie in `directory`, where an overlay might replace one.
    """
    from marco_model.attribution import class_gradient

    names = output_names(files, directory)
    index = _index(classifier, options.class_name)
    gradient = class_gradient(classifier.logits)
    directory.mkdir(parents=True, exist_ok=True)
    failed = 0
    with (
        result_tables(directory / TABLE, COLUMNS) as (write, write_failure),
        progress("explaining", len(files)) as advance,
    ):
        for path, name in zip(files, names, strict=True):
            try:
                image = classifier.images([encoded_image(path)])[0]
            except InputError as error:
                write_failure((path, error))
                failed += 1
            else:
                shown, score = _explain(classifier, gradient, image, index, options, directory / name)
                write((path, classifier.classes[shown], f"{score:.7f}", f"{name}.png"))
            advance(1)
    return failed


def output_names(files: Sequence[Path], directory: Path) -> list[str]:
    """Returns a name without ending for each file: its own, with `-2`, `-3` … where an earlier one has it already.

    Case does not tell names apart, since some file systems don't. Raises InputError if a file lies in `directory`.
    """
    names: list[str] = []
    taken: set[str] = set()
    for path in files:
        if path.parent.resolve() == directory.resolve():
            raise InputError(f"{path} lies in the output folder {directory}; give another folder")
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _index(classifier: LoadedClassifier, class_name: str | None) -> int | None:
    if class_name is None:
        return None
    for index, name in enumerate(classifier.classes):
        if name.casefold() == class_name.casefold():
            return index
    raise InputError(f"the model has no class {class_name!r}; give one of {', '.join(classifier.classes)}")


def _explain(
    classifier: LoadedClassifier,
    gradient: Any,
    image: np.ndarray,
    index: int | None,
    options: Options,
    output: Path,
) -> tuple[int, float]:
    """Writes the overlay, and the attribution where wanted; returns the class explained and its score."""
    import tensorflow as tf

    from marco_model.attribution import overlay, smoothgrad

    scores = tf.nn.softmax(classifier.logits(image[None]))[0].numpy()
    shown = int(scores.argmax()) if index is None else index
    attribution = smoothgrad(
        gradient,
        image,
        shown,
        samples=options.samples,
        noise=options.noise,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    _write_png(overlay(image, attribution), output)
    if options.raw:
        aside = output.with_name(f".{output.name}.partial.npy")
        np.save(aside, attribution)
        aside.replace(output.with_name(f"{output.name}.npy"))
    return shown, float(scores[shown])


def _write_png(picture: np.ndarray, output: Path) -> None:
    from PIL import Image

    aside = output.with_name(f".{output.name}.partial.png")
    Image.fromarray(picture).save(aside)
    aside.replace(output.with_name(f"{output.name}.png"))
