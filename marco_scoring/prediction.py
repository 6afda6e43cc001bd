"""Scores and explains image files into a CSV with one row per image; failed files go into a second one, with reasons.

In this order: the two tables, `predict`, and `explain`, which draws an overlay per image and imports TensorFlow.
"""

import collections
import contextlib
import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import marco_model
from marco_data import image_files, place_reader, places, progress
from marco_model import errors, store

Write = Callable[[Sequence[Any]], Any]


def errors_path(output: Path) -> Path:
    """Returns the path of the list of failed files: `scores.errors.csv` beside `scores.csv`."""
    return output.with_suffix(".errors.csv")


@contextlib.contextmanager
def result_tables(output: Path, columns: Sequence[str]) -> Iterator[tuple[Write, Write]]:
    """Yields two functions that write a row: of `columns` into `output`, and `(path, reason)` into `errors_path`.

    Both files appear only when complete; the second does not exist afterwards if no row was written into it. They are
    UTF-8 whatever the names of files are: see `as_text`.
    """
    failures = [["path", "reason"]]
    with store.whole_file(output) as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        yield lambda row: rows.writerow(_as_text(row)), lambda row: failures.append(_as_text(row))
    if failures[1:]:
        with store.whole_file(errors_path(output)) as file:
            csv.writer(file).writerows(failures)
    else:
        errors_path(output).unlink(missing_ok=True)


def _as_text(row: Sequence[Any]) -> list[str]:
    return [image_files.as_text(cell) for cell in row]


LEADING_COLUMNS = ("path", "plate", "well", "drop", "class")
LAST_COLUMNS = ("model", "inspection", "date")
Observe = Callable[[Path, bytes | None, np.ndarray | str], None]
"""Called with each file's path, its encoded image if it could be read, and its scores or the reason for none."""

BATCH_SIZE = 8
"""Larger batches were no faster on two cores and take more memory."""


class Outcome(NamedTuple):
    """Images by predicted class, and the number of files that could not be scored."""

    by_class: dict[str, int]
    failed: int


def columns(classes: Sequence[str]) -> list[str]:
    """Returns the header of the CSV: one column per class, in lower case, between the fixed columns."""
    taken = {*LEADING_COLUMNS, *LAST_COLUMNS}
    names = [name.lower() for name in classes]
    return [*LEADING_COLUMNS, *(f"{name}_score" if name in taken else name for name in names), *LAST_COLUMNS]


def class_index(classes: Sequence[str], name: str) -> int:
    """Returns the index of the class `name`, in whatever case; raises InputError if there is no such class."""
    folded = [known.casefold() for known in classes]
    if name.casefold() not in folded:
        raise errors.InputError(f"the model has no class {name!r}; give one of {', '.join(classes)}")
    return folded.index(name.casefold())


def predict(
    classifier: "marco_model.LoadedClassifier",
    files: Sequence[Path],
    output: Path,
    batch_size: int = BATCH_SIZE,
    observe: Observe | None = None,
    place_of: places.PlaceOf | None = None,
) -> Outcome:
    """Scores `files` into `output`, in their order; both CSVs appear only when complete.

    The columns are those of `columns`: scores in [0, 1], `class` the one with the highest. Failed files are in
    `errors_path(output)` (`path,reason`), which does not exist afterwards if no file failed. `observe` is called with
    each file in turn: a report takes the images from it without reading them again. `place_of` reads the places of
    files; by default `marco_data.place_reader.reader` of all.
    """

    def results() -> Iterator[tuple[Path, np.ndarray | str, str]]:
        with progress.progress("scoring", len(files)) as advance:
            for path, image, result in _results(classifier, files, batch_size):
                if observe:
                    observe(path, image, result)
                yield path, result, classifier.name
                advance(1)

    return write_scores(output, classifier.classes, results(), place_of or place_reader.reader(files))


def write_scores(
    output: Path,
    classes: Sequence[str],
    results: Iterable[tuple[str | Path, Sequence[float] | np.ndarray | str, str]],
    place_of: places.PlaceOf = places.place_of,
) -> Outcome:
    """Writes the tables of `predict` from each image's path or URI, scores or the reason for none, and model."""
    by_class = collections.Counter(dict.fromkeys(classes, 0))
    failed = 0
    with result_tables(output, columns(classes)) as (write, write_failure):
        for path, result, model in results:
            if isinstance(result, str):
                write_failure((path, result))
                failed += 1
            else:
                name = classes[int(np.argmax(result))]
                by_class[name] += 1
                scores = (f"{score:.7f}" for score in result)
                place = place_of(path)
                drop = place.plate, place.well, place.drop
                write((path, *drop, name, *scores, model, place.inspection, place.date))
    return Outcome(dict(by_class), failed)


def _results(
    classifier: "marco_model.LoadedClassifier", files: Sequence[Path], batch_size: int
) -> Iterator[tuple[Path, bytes | None, np.ndarray | str]]:
    """Yields each file, its encoded image if there is one, and its scores, float32 [classes], or the reason for none.

    The next batch is read while one is scored.
    """
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(_read, files[:batch_size])
        for start in range(0, len(files), batch_size):
            images, following = upcoming.result(), start + batch_size
            upcoming = reader.submit(_read, files[following : following + batch_size])
            encoded = [image for image in images if isinstance(image, bytes)]
            scores = iter(errors.result_or_reason(classifier.score, encoded))
            for path, image in zip(files[start:following], images, strict=True):
                if isinstance(image, bytes):
                    yield path, image, next(scores)
                else:
                    yield path, None, image


def _read(files: Sequence[Path]) -> list[bytes | str]:
    return errors.result_or_reason(lambda paths: [image_files.encoded_image(path) for path in paths], list(files))


EXPLAINED, EXPLAINED_COLUMNS = "explained.csv", ("path", "class", "score", "output")


def explain(
    classifier: "marco_model.LoadedClassifier",
    files: Sequence[Path],
    directory: Path,
    *,
    samples: int,
    noise: float,
    batch_size: int,
    seed: int = 0,
    class_name: str | None = None,
    raw: bool = False,
) -> int:
    """Writes `NAME.png` for each file into `directory`, and `explained.csv`; returns the number of failed files.

    The overlay shows the network's input: the square, resized image. It explains the class `class_name`, or the
    predicted one, by `marco_model.attribution.smoothgrad` with `samples`, `noise`, `batch_size` and `seed`. With `raw`,
    `NAME.npy` holds the attribution, float32 [size, size]. Failed files are in `explained.errors.csv` (`path,reason`).

    Raises InputError for an unknown class, or for files in `directory`, where an overlay might replace one.
    """
    import tensorflow as tf
    from PIL import Image

    from marco_model import attribution

    names = output_names(files, directory)
    chosen = None if class_name is None else class_index(classifier.classes, class_name)
    gradient = attribution.class_gradient(classifier.logits)
    directory.mkdir(parents=True, exist_ok=True)
    failed = 0
    with (
        result_tables(directory / EXPLAINED, EXPLAINED_COLUMNS) as (write, write_failure),
        progress.progress("explaining", len(files)) as advance,
    ):
        for path, name in zip(files, names, strict=True):
            try:
                image = classifier.images([image_files.encoded_image(path)])[0]
            except errors.InputError as error:
                write_failure((path, error))
                failed += 1
            else:
                scores = tf.nn.softmax(classifier.logits(image[None]))[0].numpy()
                explained = int(scores.argmax()) if chosen is None else chosen
                importance = attribution.smoothgrad(
                    gradient, image, explained, samples=samples, noise=noise, batch_size=batch_size, seed=seed
                )
                with store.whole_file(directory / f"{name}.png", "wb") as file:
                    Image.fromarray(attribution.overlay(image, importance)).save(file, "PNG")
                if raw:
                    with store.whole_file(directory / f"{name}.npy", "wb") as file:
                        np.save(file, importance)
                write((path, classifier.classes[explained], f"{scores[explained]:.7f}", f"{name}.png"))
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
            raise errors.InputError(f"{path} is in the output folder {directory}; give another folder")
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names
