"""Scores image files into a CSV, a row an image; what can't be scored goes into a second one with its reason."""

from __future__ import annotations

import collections
import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from marco_data.image_files import as_text, drop_place, encoded_image
from marco_data.progress import progress
from marco_model.errors import InputError

Write = Callable[[Sequence[Any]], Any]


def errors_path(output: Path) -> Path:
    """Returns where the files that gave no result are listed: `scores.errors.csv` beside `scores.csv`."""
    return output.with_suffix(".errors.csv")


@contextlib.contextmanager
def result_tables(output: Path, columns: Sequence[str]) -> Iterator[tuple[Write, Write]]:
    """Yields two functions that write a row: of `columns` into `output`, and `(path, reason)` into `errors_path`.

    Both files are written aside and renamed at the end; where nothing failed there is no second one afterwards. They
    are UTF-8 whatever the names of files are: see `as_text`.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    errors = errors_path(output)
    aside, errors_aside = (path.with_name(f".{path.name}.partial") for path in (output, errors))
    with _opened(aside) as file, _opened(errors_aside) as errors_file:
        write, write_failure = _row_writer(file), _row_writer(errors_file)
        write(columns)
        write_failure(("path", "reason"))
        after_header = errors_file.tell()
        yield write, write_failure
        failed = errors_file.tell() > after_header
    aside.replace(output)
    if failed:
        errors_aside.replace(errors)
    else:
        errors_aside.unlink()
        errors.unlink(missing_ok=True)


def _opened(path: Path) -> TextIO:
    return path.open("w", newline="", encoding="utf-8")


def _row_writer(file: TextIO) -> Write:
    rows = csv.writer(file)
    return lambda row: rows.writerow([as_text(cell) if isinstance(cell, (str, PurePath)) else cell for cell in row])


if TYPE_CHECKING:
    import numpy as np

    from marco_model.load import LoadedClassifier

LEADING_COLUMNS = ("path", "plate", "well", "drop", "class")
LAST_COLUMN = "model"
Observe = Callable[["Path", "bytes | None", "np.ndarray | str"], None]
"""Told of each file: its path, its encoded image if it could be read, and its scores or why there are none."""

BATCH_SIZE = 8
"""Larger batches were no faster on two cores and take more memory."""


class Outcome(NamedTuple):
    """How many images were given each class, and how many files could not be scored."""

    by_class: dict[str, int]
    failed: int


def columns(classes: Sequence[str]) -> list[str]:
    """Returns the header of the scores: one column for each class, in lower case, between the fixed ones."""
    taken = {*LEADING_COLUMNS, LAST_COLUMN}
    names = [name.lower() for name in classes]
    return [*LEADING_COLUMNS, *(f"{name}_score" if name in taken else name for name in names), LAST_COLUMN]


def predict(
    classifier: LoadedClassifier,
    files: Sequence[Path],
    output: Path,
    batch_size: int = BATCH_SIZE,
    observe: Observe | None = None,
) -> Outcome:
    """Scores `files` into `output`, in their order; both CSVs appear under their names only when all is done.

    The columns are those of `columns`: scores in [0, 1], `class` the one with the highest. Files that could not be
    scored are in `errors_path(output)` (`path,reason`); where there are none, that file does not exist afterwards.
    `observe` is called with each file in turn, such as by a report that wants the images which are read anyway.
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
    classifier: LoadedClassifier, files: Sequence[Path], batch_size: int
) -> Iterator[tuple[Path, bytes | None, np.ndarray | str]]:
    """Yields each file, its encoded image if there is one, and its scores, float32 [classes], or why there are none.

    While one batch is scored the next is read.
    """
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    with ThreadPoolExecutor(1) as reader:
        upcoming = [reader.submit(_read, batches[0])] if batches else []
        for index, batch in enumerate(batches):
            read = upcoming.pop().result()
            if index + 1 < len(batches):
                upcoming.append(reader.submit(_read, batches[index + 1]))
            scores = iter(_scores(classifier, [image for image in read if isinstance(image, bytes)]))
            for path, image in zip(batch, read, strict=True):
                if isinstance(image, bytes):
                    yield path, image, next(scores)
                else:
                    yield path, None, image


def _read(files: Sequence[Path]) -> list[bytes | str]:
    """Returns each file's encoded image, or the reason why there is none."""
    images: list[bytes | str] = []
    for path in files:
        try:
            images.append(encoded_image(path))
        except InputError as error:
            images.append(str(error))
    return images


def _scores(classifier: LoadedClassifier, images: Sequence[bytes]) -> list[np.ndarray | str]:
    """Scores a batch; one that fails is scored image by image, so that an image at fault costs only itself."""
    try:
        return list(classifier.score(images))
    except InputError as error:
        if len(images) == 1:
            return [str(error)]
        return [result for image in images for result in _scores(classifier, [image])]
