"""Scores image files into a CSV with one row per image; files that fail go into a second one with the reasons."""

import collections
import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from marco_data.image_files import as_text, drop_place, encoded_image
from marco_data.progress import progress
from marco_model import store
from marco_model.errors import InputError

if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier

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
    errors = errors_path(output)
    failures = [["path", "reason"]]
    with store.whole_file(output) as file:
        write = _row_writer(file)
        write(columns)
        yield write, lambda row: failures.append([as_text(str(cell)) for cell in row])
    if failures[1:]:
        with store.whole_file(errors) as file:
            csv.writer(file).writerows(failures)
    else:
        errors.unlink(missing_ok=True)


def _row_writer(file: IO[str]) -> Write:
    rows = csv.writer(file)
    return lambda row: rows.writerow([as_text(cell) if isinstance(cell, (str, PurePath)) else cell for cell in row])


LEADING_COLUMNS = ("path", "plate", "well", "drop", "class")
LAST_COLUMN = "model"
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
    taken = {*LEADING_COLUMNS, LAST_COLUMN}
    names = [name.lower() for name in classes]
    return [*LEADING_COLUMNS, *(f"{name}_score" if name in taken else name for name in names), LAST_COLUMN]


def predict(
    classifier: "LoadedClassifier",
    files: Sequence[Path],
    output: Path,
    batch_size: int = BATCH_SIZE,
    observe: Observe | None = None,
) -> Outcome:
    """Scores `files` into `output`, in their order; both CSVs appear only when complete.

    The columns are those of `columns`: scores in [0, 1], `class` the one with the highest. Failed files are in
    `errors_path(output)` (`path,reason`), which does not exist afterwards if no file failed. `observe` is called with
    each file in turn: a report takes the images from it without reading them again.
    """
    by_class: collections.Counter[str] = collections.Counter(dict.fromkeys(classifier.classes, 0))
    failed = 0
    with (
        result_tables(output, columns(classifier.classes)) as (write, write_failure),
        progress("scoring", len(files)) as advance,
    ):
        for path, image, result in _results(classifier, files, batch_size):
            if observe:
                observe(path, image, result)
            if isinstance(result, str):
                write_failure((path, result))
                failed += 1
            else:
                name = classifier.classes[int(result.argmax())]
                by_class[name] += 1
                scores = (f"{score:.7f}" for score in result)
                write((path, *drop_place(path.name), name, *scores, classifier.name))
            advance(1)
    return Outcome(dict(by_class), failed)


def _results(
    classifier: "LoadedClassifier", files: Sequence[Path], batch_size: int
) -> Iterator[tuple[Path, bytes | None, np.ndarray | str]]:
    """Yields each file, its encoded image if there is one, and its scores, float32 [classes], or the reason for none.

    The next batch is read while one is scored.
    """
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    with ThreadPoolExecutor(1) as reader:
        upcoming = [reader.submit(_read, batches[0])] if batches else []
        for index, batch in enumerate(batches):
            images = upcoming.pop().result()
            if index + 1 < len(batches):
                upcoming.append(reader.submit(_read, batches[index + 1]))
            scores = iter(_scores(classifier, [image for image in images if isinstance(image, bytes)]))
            for path, image in zip(batch, images, strict=True):
                if isinstance(image, bytes):
                    yield path, image, next(scores)
                else:
                    yield path, None, image


def _read(files: Sequence[Path]) -> list[bytes | str]:
    """Returns each file's encoded image, or the reason why it has none."""
    images: list[bytes | str] = []
    for path in files:
        try:
            images.append(encoded_image(path))
        except InputError as error:
            images.append(str(error))
    return images


def _scores(classifier: "LoadedClassifier", images: Sequence[bytes]) -> list[np.ndarray | str]:
    """Scores a batch; if it fails, scores image by image, so that a bad image affects only itself."""
    try:
        return list(classifier.score(images))
    except InputError as error:
        if len(images) == 1:
            return [str(error)]
        return [result for image in images for result in _scores(classifier, [image])]
