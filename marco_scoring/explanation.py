"""Explains the scores of image files: one overlay per image, and a CSV that lists them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marco_data.image_files import encoded_image
from marco_data.progress import progress
from marco_model import store
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


def explain(classifier: "LoadedClassifier", files: Sequence[Path], directory: Path, options: Options) -> int:
    """Writes `NAME.png` for each file into `directory`, and `explained.csv`; returns the number of failed files.

    The overlay shows the network's input: the square, resized image. With `options.raw`, `NAME.npy`
    holds the attribution, float32 [size, size]. Failed files are in `explained.errors.csv` (`path,reason`).

    Raises InputError for an unknown class, or for files in `directory`, where an overlay might replace one.
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
                explained, score = _explain(classifier, gradient, image, index, options, directory / name)
                write((path, classifier.classes[explained], f"{score:.7f}", f"{name}.png"))
            advance(1)
    return failed


def output_names(files: Sequence[Path], directory: Path) -> list[str]:
    """Returns a name without ending for each file: its own, with `-2`, `-3` … if an earlier file has the same name.

    Names are compared without case, as some file systems do. Raises InputError if a file is in `directory`.
    """
    names: list[str] = []
    taken: set[str] = set()
    for path in files:
        if path.parent.resolve() == directory.resolve():
            raise InputError(f"{path} is in the output folder {directory}; give another folder")
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _index(classifier: "LoadedClassifier", class_name: str | None) -> int | None:
    if class_name is None:
        return None
    for index, name in enumerate(classifier.classes):
        if name.casefold() == class_name.casefold():
            return index
    raise InputError(f"the model has no class {class_name!r}; give one of {', '.join(classifier.classes)}")


def _explain(
    classifier: "LoadedClassifier",
    gradient: Any,
    image: np.ndarray,
    index: int | None,
    options: Options,
    output: Path,
) -> tuple[int, float]:
    """Writes the overlay, and the attribution if requested; returns the explained class and its score."""
    import tensorflow as tf
    from PIL import Image

    from marco_model import attribution

    scores = tf.nn.softmax(classifier.logits(image[None]))[0].numpy()
    explained = int(scores.argmax()) if index is None else index
    importance = attribution.smoothgrad(
        gradient,
        image,
        explained,
        samples=options.samples,
        noise=options.noise,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    with store.whole_file(output.with_name(f"{output.name}.png"), "wb") as file:
        Image.fromarray(attribution.overlay(image, importance)).save(file, "PNG")
    if options.raw:
        with store.whole_file(output.with_name(f"{output.name}.npy"), "wb") as file:
            np.save(file, importance)
    return explained, float(scores[explained])
