"""Scores images from Python: `score_images` takes files and folders, or encoded images, and returns a table."""

import dataclasses
import functools
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import marco_model
from marco_data import image_files, place_reader, places, progress
from marco_model import errors, model_directory, pictures
from marco_scoring import plates, prediction, score_table

if TYPE_CHECKING:
    import pandas as pd

Source = str | Path | bytes


@dataclasses.dataclass(frozen=True, repr=False)
class ScoredImages:
    """The scores of images, one row per image, in the order of the images.

    Attributes:
        model: the classifier's name.
        classes: names of the classes, in the order of `scores`.
        rows: one dict per image with the columns of `marco predict`, without size and time of the
            file: scores as floats in [0, 1], empty text for what is not known.
        failures: path and reason of each image that could not be scored.
        left_out: what was not looked at in folders, as text; empty if there is nothing.
    """

    model: str
    classes: tuple[str, ...]
    rows: list[score_table.Row]
    failures: list[tuple[str, str]]
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[score_table.Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        by_class = Counter(row["class"] for row in self.rows)
        counts = ", ".join(f"{name} {by_class[name]}" for name in self.classes)
        failed = f"; {len(self.failures)} failed" if self.failures else ""
        return f"<ScoredImages by {self.model}: {len(self)} ({counts}){failed}>"

    @property
    def scores(self) -> np.ndarray:
        """The scores, float32 [images, classes], each row summing to 1."""
        columns = score_table.class_columns(self.classes).values()
        values = [[row[column] for column in columns] for row in self.rows]
        return np.array(values, np.float32).reshape(len(self), len(self.classes))

    def to_pandas(self) -> "pd.DataFrame":
        """Returns the rows as a DataFrame, in which what is not known is missing.

        Raises `InputError` if pandas is not installed: the light install has none.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise errors.InputError("to_pandas needs pandas, which is not installed: pip install pandas") from None
        return pd.DataFrame([{name: None if cell == "" else cell for name, cell in row.items()} for row in self.rows])


def score_images(
    images: Source | Sequence[Source],
    classifier: "marco_model.LoadedClassifier | str | Path | None" = None,
    *,
    names: str = "",
    bits: int | None = None,
    batch_size: int = prediction.BATCH_SIZE,
    average: int = 1,
    show_progress: bool = False,
) -> ScoredImages:
    """Scores image files, folders of them with their subfolders, or encoded images.

    An image that cannot be read or decoded is in `failures`, and a warning counts them.

    Args:
        images: paths, of which folders stand for the images that `marco predict` would score; or bytes, each a JPEG,
            PNG, TIFF or BMP, whose paths are then `images[0]`, `images[1]` and so on.
        classifier: one that is open, or a model's folder; by default the classifier published in 2018.
        names: how to read plate, well and time from paths that are named otherwise, as `marco predict --names`.
        bits: how many of 16 bits the camera uses, 8 to 16, for grey TIFF and PNG; by default by each image.
        batch_size: images scored at once.
        average: scores are the mean over so many symmetric views of an image, 1, 2, 4 or 8, as `marco predict
            --average`. An open classifier brings its own.
        show_progress: on stderr.

    Raises `InputError` for a path that does not exist, for paths and bytes together, for another `bits` or `average`,
    and if there is no such model.
    """
    sources = [images] if isinstance(images, str | Path | bytes) else list(images)
    encoded = [source for source in sources if isinstance(source, bytes)]
    if encoded and len(encoded) < len(sources):
        raise errors.InputError(f"{len(encoded)} of {len(sources)} images are bytes, the others paths; give one kind")
    if bits is not None and bits not in range(8, 17):
        raise errors.InputError(f"bits is {bits}; give a number from 8 to 16")
    if classifier is None:
        classifier = model_directory.published_directory()
    if not isinstance(classifier, marco_model.LoadedClassifier):
        classifier = marco_model.open_classifier(classifier, average=average)
    left_out = ""
    place_of: places.PlaceOf
    read: prediction.Read
    if encoded:
        by_path = {Path(f"images[{number}]"): image for number, image in enumerate(encoded)}
        files, place_of, read = list(by_path), _nowhere, lambda path: pictures.upright(by_path[path], bits)
    else:
        files, left_out = find_files([source for source in sources if not isinstance(source, bytes)])
        place_of, read = place_reader.reader(files, names), functools.partial(image_files.encoded_image, bits=bits)
    rows: list[score_table.Row] = []
    scored: list[plates.ScoredPicture] = []
    failures: list[tuple[str, str]] = []
    with progress.progress("scoring", len(files), visible=show_progress) as advance:
        for path, image in prediction.score_each(classifier, files, batch_size, read):
            if isinstance(image, str):
                failures.append((image_files.as_text(path), image))
            else:
                rows.append(prediction.row_of(classifier, path, image, place_of(path)))
                if classifier.time_course:
                    scored.append(plates.ScoredPicture(path, place_of(path), image.scores, image.views, image.flag))
            advance(1)
    if classifier.time_course:
        courses = plates.course_answers(classifier.time_course, scored)
        for row, picture in zip(rows, scored, strict=True):
            if answer := courses.get(picture.path):
                row |= zip(score_table.COURSE_COLUMNS, answer, strict=True)
    if failures:
        first = ": ".join(failures[0])
        message = f"{len(failures)} of {len(files)} images cannot be scored, see failures; the first, {first}"
        warnings.warn(message, stacklevel=2)
    return ScoredImages(classifier.name, classifier.classes, rows, failures, left_out)


def _nowhere(path: str | Path) -> places.Place:
    return places.Place()


def find_files(paths: Sequence[str | Path]) -> tuple[list[Path], str]:
    """Returns the image files among and below `paths`, and in words what was left out.

    Those are thumbnails and focus slices of drops with a better image, unless they are among `paths`, files with other
    endings, hidden files and copies. Raises `InputError` for a path that does not exist.
    """
    listing = image_files.find_images(paths)
    main = {*places.main_images(listing.files), *map(Path, paths)}
    files = [file for file in listing.files if file in main]
    notes = [listing.summary()] if listing.summary() else []
    if slices := len(listing.files) - len(files):
        notes.insert(0, f"left out, thumbnails and focus slices of drops with a better image: {slices}")
    return files, "; ".join(notes)
