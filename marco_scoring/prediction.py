"""Scores and explains image files into a table with one row per image; failed files go into a second one, with reasons.

In this order: the two tables, `predict`, and `explain`, which draws an overlay per image and imports TensorFlow.
`score_table` has the columns of the scores and how they are kept.
"""

import collections
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import marco_model
from marco_data import image_files, name_tables, place_reader, places, progress
from marco_model import calibration, errors, pixels, store
from marco_scoring import plates, score_table

Write = Callable[[Sequence[Any]], Any]


@contextlib.contextmanager
def result_tables(output: Path, columns: Sequence[str]) -> Iterator[tuple[Write, Write]]:
    """Yields two functions that write a row: of `columns` into `output`, and `(path, reason)` into its second file.

    That is `score_table.errors_path(output)`. Both files appear only when complete; the second does not exist
    afterwards if no row was written into it. They are UTF-8 whatever the names of files are: see `as_text`.
    """
    failures: list[list[str]] = []
    with store.whole_file(output) as file:

        def write(row: Sequence[Any]) -> None:
            name_tables.write_rows(file, [_as_text(row)], end="\r\n")

        write(columns)
        yield write, lambda row: failures.append(_as_text(row))
    listed = score_table.errors_path(output)
    if failures:
        name_tables.write_csv(listed, ("path", "reason"), failures)
    else:
        listed.unlink(missing_ok=True)


def _as_text(row: Sequence[Any]) -> list[str]:
    return [image_files.as_text(cell) for cell in row]


class Image(NamedTuple):
    """An image that was read: JPEG or PNG bytes, its flag, and once it is scored its scores, novelty and views.

    `flag`: as `pixels.flag` gives, or `UNKNOWN` if its novelty is above 1 (`marco_model.novelty`). `scores`: float32
    [classes]. `views`: what the model's time course takes, float32 [values].
    """

    encoded: bytes
    flag: str
    scores: np.ndarray = np.zeros(0, np.float32)
    novelty: float = 0.0
    views: np.ndarray = np.zeros(0, np.float32)


Read = Callable[[Path], bytes]
"""As `image_files.encoded_image`; raises `InputError` for a file that cannot be scored."""
Observe = Callable[[Path, Image | str], None]
"""Called with each file's path, and its scored image or the reason for none."""

BATCH_SIZE = 8
"""Larger batches were no faster on two cores and take more memory."""
UNKNOWN = "unknown"
"""The flag of an image that is unlike the model's training pictures: a warning, which changes neither rank nor hits."""
_SAME_SCORES = 1e-4
"""The most that scores of one model differ by between machines."""


class Outcome(NamedTuple):
    """Images by predicted class, the number of files that could not be scored, and of those an earlier run scored.

    `by_flag`: images that this run scored and that have a flag. `without_well`: scored images whose place has none.
    `gone`: rows of an earlier run whose files are no longer there. `strange`: all its rows, if all are of other images.
    `courses`: what drops' pictures say together, by path.
    """

    by_class: dict[str, int]
    failed: int
    earlier: int = 0
    by_flag: Mapping[str, int] = {}
    without_well: int = 0
    gone: int = 0
    strange: int = 0
    courses: Mapping[Path, plates.CourseAnswer] = {}


def predict(
    classifier: "marco_model.LoadedClassifier",
    files: Sequence[Path],
    output: Path | None,
    batch_size: int = BATCH_SIZE,
    observe: Observe | None = None,
    place_of: places.PlaceOf | None = None,
    options: score_table.Options = score_table.DEFAULTS,
    read: Read = image_files.encoded_image,
) -> Outcome:
    """Scores `files` into the table `output`, in their order; see `score_table.open_table`.

    The columns are those of `score_table.columns`: scores in [0, 1], `class` the one with the highest. Failed files
    are in `score_table.errors_path(output)` (`path,reason`), which does not exist afterwards if no file failed.
    `observe` is called with each file: a report takes the images from it without reading them again. `place_of` reads
    the places of files; by default `marco_data.place_reader.reader` of all. Images that an earlier run scored are only
    read, for `observe`; the first of them is scored again.

    Raises `InputError` if the earlier run scored by another model, and as `open_table` does.
    """
    place_of = place_of or place_reader.reader(files)
    classes = classifier.classes
    extras = score_table.Extras(
        calibrated=classifier.temperature != 1,
        novelty=classifier.reference is not None,
        course=classifier.time_course is not None,
    )
    pictures: list[plates.ScoredPicture] = []
    by_class = collections.Counter(dict.fromkeys(classes, 0))
    by_flag: collections.Counter[str] = collections.Counter()
    with (
        score_table.open_table(output, classes, classifier.name, extras, options=options, place_of=place_of) as table,
        progress.progress("scoring", len(files)) as advance,
    ):
        # A file that changes after this is scored again by the next run.
        stamps = {path: score_table.stamp(path) for path in files}
        earlier = {path: row for path in files if (row := table.earlier_row(path))}
        others = table.earlier_others(files)
        gone = sum(not os.path.lexists(path) for path in others)
        strange = len(others) if len(others) == len(table.earlier) else 0
        without_well = sum(not place_of(path).well for path in earlier)
        for row in earlier.values():
            by_class[classes[int(row.scores.argmax())]] += 1
        _check_scores(classifier, earlier, read)
        if observe:
            for path, row in earlier.items():
                (known,) = _read([path], read)
                if isinstance(known, Image):
                    known = known._replace(flag=known.flag or row.flag, scores=row.scores)
                observe(path, known)
        advance(len(earlier), earlier=True)
        remaining = [path for path in files if path not in earlier]
        for path, image in score_each(classifier, remaining, batch_size, read):
            if observe:
                observe(path, image)
            if isinstance(image, str):
                table.write_failure(path, image)
            else:
                cells = row_of(classifier, path, image, place_of(path))
                table.write(cells | dict(zip(score_table.STAMP_COLUMNS, stamps[path], strict=True)))
                if classifier.time_course:
                    pictures += _pictures([(path, image)], place_of)
                by_class[cells["class"]] += 1
                by_flag.update([image.flag] if image.flag else [])
                without_well += not cells["well"]
            advance(1)
        courses = {path: row.course for path, row in earlier.items() if row.course}
        if classifier.time_course:
            # Tables do not hold what the time course takes, so that earlier pictures of such drops are scored again.
            settled = [path for path, row in earlier.items() if row.course or row.flag in pixels.UNUSABLE]
            again = plates.to_score_again({path: place_of(path) for path in files}, earlier, settled)
            pictures += _pictures(score_each(classifier, again, batch_size, read), place_of)
            found = plates.course_answers(classifier.time_course, pictures)
            table.add_courses(found)
            courses |= found
    return Outcome(dict(by_class), len(table.failures), len(earlier), by_flag, without_well, gone, strange, courses)


def _pictures(scored: Iterable[tuple[Path, Image | str]], place_of: places.PlaceOf) -> list[plates.ScoredPicture]:
    """Returns what the time course takes of the images that were scored."""
    return [
        plates.ScoredPicture(path, place_of(path), image.scores, image.views, image.flag)
        for path, image in scored
        if isinstance(image, Image)
    ]


def row_of(
    classifier: "marco_model.LoadedClassifier", path: str | Path, image: Image, place: places.Place
) -> score_table.Row:
    """Returns the row of an image, with what else the classifier gives; the cells of its drop's course are empty."""
    scores, temperature = image.scores, classifier.temperature
    probabilities = calibration.calibrate(scores[None], temperature)[0] if temperature != 1 else ()
    cells = score_table.row(path, classifier.classes, scores, classifier.name, place, probabilities, image.flag)
    cells |= {score_table.NOVELTY: image.novelty} if classifier.reference else {}
    return cells | (dict.fromkeys(score_table.COURSE_COLUMNS, "") if classifier.time_course else {})


def _check_scores(
    classifier: "marco_model.LoadedClassifier", earlier: Mapping[Path, score_table.Earlier], read: Read
) -> None:
    """Scores one image again: models of one name may differ."""
    for path, row in earlier.items():
        image = _read([path], read)[0]
        if isinstance(image, Image):
            again = classifier.score([image.encoded])[0]
            if not np.allclose(again, row.scores, atol=_SAME_SCORES):
                raise errors.InputError(
                    f"{path} has the scores {np.round(row.scores, 3).tolist()} in the table, and "
                    f"{np.round(again, 3).tolist()} by {classifier.name}, another model of that name; give the "
                    "same --model, or another --output"
                )
            return


def score_each(
    classifier: "marco_model.LoadedClassifier", files: Sequence[Path], batch_size: int, read: Read
) -> Iterator[tuple[Path, Image | str]]:
    """Yields each file, and its scored image or the reason for none.

    The next batch is read while one is scored.
    """

    def score(images: list[Image]) -> list[Image]:
        described = classifier.described([image.encoded for image in images])
        return [
            Image(image.encoded, image.flag or (UNKNOWN if novelty > 1 else ""), scores, float(novelty), views)
            for image, scores, novelty, views in zip(images, *described, strict=True)
        ]

    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(_read, files[:batch_size], read)
        for start in range(0, len(files), batch_size):
            images, following = upcoming.result(), start + batch_size
            upcoming = reader.submit(_read, files[following : following + batch_size], read)
            readable = [image for image in images if isinstance(image, Image)]
            scored = iter(errors.result_or_reason(score, readable))
            for path, image in zip(files[start:following], images, strict=True):
                yield path, next(scored) if isinstance(image, Image) else image


def _read(files: Sequence[Path], read: Read) -> list[Image | str]:
    def images(paths: list[Path]) -> list[Image]:
        return [Image(encoded, pixels.flag(encoded)) for encoded in map(read, paths)]

    return errors.result_or_reason(images, list(files))


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
    read: Read = image_files.encoded_image,
) -> int:
    """Writes `NAME.png` for each file into `directory`, and `explained.csv`; returns the number of failed files.

    The overlay shows the network's input: the square, resized image. It explains the class `class_name`, or the
    predicted one, by `marco_model.attribution.smoothgrad` with `samples`, `noise`, `batch_size` and `seed`. With `raw`,
    `NAME.npy` holds the attribution, float32 [size, size]. Failed files are in `explained.errors.csv` (`path,reason`).

    Raises InputError for an unknown class, for files in `directory`, where an overlay might replace one, and if another
    process writes into it.
    """
    import PIL.Image
    import tensorflow as tf

    from marco_model import attribution

    names = output_names(files, directory)
    pictures = [directory / f"{name}{ending}" for name in names for ending in (".png", *([".npy"] if raw else []))]
    store.refuse_inputs((("the overlay", path) for path in pictures), files)
    chosen = None if class_name is None else plates.class_index(classifier.classes, class_name)
    gradient = attribution.class_gradient(classifier.logits)
    failed = 0
    with (
        store.sole_writer(directory),
        result_tables(directory / EXPLAINED, EXPLAINED_COLUMNS) as (write, write_failure),
        progress.progress("explaining", len(files)) as advance,
    ):
        for path, name in zip(files, names, strict=True):
            try:
                image = classifier.images([read(path)])[0]
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
                    PIL.Image.fromarray(attribution.overlay(image, importance)).save(file, "PNG")
                if raw:
                    with store.whole_file(directory / f"{name}.npy", "wb") as file:
                        np.save(file, importance)
                write((path, classifier.classes[explained], f"{scores[explained]:.7f}", f"{name}.png"))
            advance(1)
    return failed


def output_names(files: Sequence[Path], directory: Path) -> list[str]:
    """Returns a name without ending for each file: its own, with `-2`, `-3` … if an earlier file has the same name.

    Names are compared without case, as some file systems do. Raises InputError if a file, or what it links to, is in
    `directory`.
    """
    names: list[str] = []
    taken: set[str] = set()
    for path in files:
        if directory.resolve() in (path.parent.resolve(), path.resolve().parent):
            raise errors.InputError(f"{path} is in the output folder {directory}; give another folder")
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names
