"""The report of plates: scores image files as `marco_scoring.prediction` does and writes them as an HTML page.

In this order: `predict_with_report`, the images with their places on plates, thumbnails and overlays, and the page,
whose template, style and scripts are in `plate_page/`. TensorFlow is imported only for overlays.
"""

import base64
import dataclasses
import datetime
import functools
import io
import os
import shlex
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import marco_model
from marco_data import image_files, overlay, pages, place_reader, places, progress
from marco_model import calibration, pixels, store
from marco_scoring import plates, prediction, score_table

QUALITY = 72
_SIZES = ((800, 480), (2_500, 320))
"""Number of images and their size in pixels: up to 800 get 480, about 15 MB of HTML (docs/plates.md)."""
_SMALL = 200

MOST_WAITING = 16
"""Full images that wait for their thumbnails, besides the batches being read and scored."""

PAGE_FOLDER = Path(__file__).with_name("plate_page")
SCRIPTS = ("data.js", "marks.js", "map.js", "browse.js", "lightbox.js", "main.js")
"""In the order in which the page runs them."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How to make a report.

    explain_command: the command that the page shows for images without an overlay, without class and path.
    explain: how many of the best images get an overlay. samples: noisy copies for each, as in `smoothgrad`; None for
    its default. thumbnail_size: the longer side in pixels; None for a size that keeps the file small enough.
    crystal_classes: names of the classes to rank by; empty for all that are named after crystals. place_of: reads the
    places of files; None for `marco_data.place_reader.reader` of them. read: reads a file.
    """

    explain_command: Sequence[str]
    explain: int = 0
    thumbnail_size: int | None = None
    crystal_classes: Sequence[str] = ()
    samples: int | None = None
    place_of: places.PlaceOf | None = None
    read: prediction.Read = image_files.encoded_image


class Thumbnail(NamedTuple):
    """A JPEG and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def predict_with_report(
    classifier: "marco_model.LoadedClassifier",
    files: Sequence[Path],
    output: Path | None,
    report: Path,
    options: Options,
    batch_size: int = prediction.BATCH_SIZE,
    table: score_table.Options = score_table.DEFAULTS,
) -> prediction.Outcome:
    """Scores `files` into `output`, as `predict` does, and writes the HTML file `report`.

    Raises InputError before scoring if the classifier has no such classes, or without TensorFlow, which explains. The
    message of an `OSError` says whether the page is what cannot be written.
    """
    crystals = plates.crystal_classes(classifier.classes, options.crystal_classes)
    if options.explain:
        _ = classifier.logits
    size = options.thumbnail_size or usual_size(len(files))
    place_of = options.place_of or place_reader.reader(files)
    images: list[DropImage] = []
    failures: list[tuple[str, str]] = []
    # Thumbnails are made on a separate thread, while the next batch is scored.
    with ThreadPoolExecutor(1) as maker:

        def observe(path: Path, image: prediction.Image | str) -> None:
            if isinstance(image, str):
                failures.append((image_files.as_text(path), image))
                return
            scores = image.scores
            score = float(plates.crystal_score(scores, crystals))
            hit = int(scores.argmax()) in crystals and image.flag not in pixels.UNUSABLE
            digest = overlay.image_digest(image.encoded)
            picture = maker.submit(thumbnail, image.encoded, size)
            images.append(DropImage(path, digest, scores, score, hit, picture, place_of(path), image.flag))
            if len(images) > MOST_WAITING:
                images[-MOST_WAITING - 1].thumbnail.result()

        outcome = prediction.predict(classifier, files, output, batch_size, observe, place_of, table, options.read)
    for image in images:
        image.course = outcome.courses.get(image.path)
    overlays = draw_overlays(classifier, images, crystals, options, size) if options.explain else {}
    page = Page(classifier, crystals, options.explain_command, place_images(images), images, failures, overlays)
    try:
        with store.whole_file(report) as file:
            file.write(page.render())
    except BrokenPipeError:
        raise
    except OSError as error:
        to_file = output is not None and output != score_table.STDOUT
        where = f" in {output}" if to_file else ""
        raise OSError(error.errno, f"{error.strerror or error}; the scores are complete{where}", str(report)) from error
    return outcome


@dataclasses.dataclass
class DropImage:
    """A scored file: its digest, scores, float32 [classes], place, and a thumbnail if one could be made.

    `score`: that of crystals. `flag`: see `prediction.Image`. `hit`: the image can be judged, and the class with the
    highest score is a crystal class. `place_images` sets the rest. `plate`: index into the plates; None if its path has
    no well of a plate. `time`: index into the plate's time points. `latest`: it shows its drop as last seen. `new`: it
    is the first hit of its drop, at the plate's last time point. `course`: what the drop's pictures say by then, where
    the model tells.
    """

    path: Path
    digest: str
    scores: np.ndarray
    score: float
    hit: bool
    thumbnail: Future[Thumbnail | None]
    place: places.Place
    flag: str = ""
    plate: int | None = None
    time: int = 0
    latest: bool = False
    new: bool = False
    course: plates.CourseAnswer | None = None

    @functools.cached_property
    def position(self) -> plates.Position | None:
        """The well's row and column; None for a name that is not a well's."""
        return plates.position(self.place.well)

    @property
    def well(self) -> str:
        """The well as people write it: `G6`, or HWMRI's number; empty without a well."""
        if self.position is None:
            return ""
        return self.place.well if self.place.well.isdigit() else plates.well_name(self.position)

    @property
    def drop(self) -> Hashable:
        """Identifies the drop that the image shows; without a well, the image stands for a drop of its own."""
        return self.path if self.plate is None else (self.plate, self.position, self.place.drop)

    @property
    def mark_key(self) -> str:
        """Identifies the drop among all pages that a browser keeps marks of; the image itself without a well."""
        if self.plate is None:
            return self.digest
        return overlay.image_digest(
            f"{self.place.identity}\0{self.well}\0{self.place.drop}".encode("utf-8", "surrogatepass")
        )

    @property
    def rank(self) -> tuple[bool, float]:
        """Sorts the best images first: by their crystal scores, those that cannot be judged at the end."""
        return self.flag in pixels.UNUSABLE, -self.score


@dataclasses.dataclass(frozen=True)
class Plate:
    """A plate, with its folder if another has its name; `drops` are the names of the drops in its wells, in order."""

    name: str
    format: plates.Format
    drops: list[str]
    times: list[plates.TimePoint]


def place_images(images: Sequence[DropImage]) -> list[Plate]:
    """Returns the plates, by name, and sets the rest of each image; one without a well is the latest of its drop."""
    by_plate: dict[tuple[str, str], list[DropImage]] = {}
    for image in images:
        if image.position is not None:
            by_plate.setdefault((image.place.plate, image.place.folder), []).append(image)
    by_name = []
    for index, ((name, folder), members) in enumerate(sorted(by_plate.items())):
        for image in members:
            image.plate = index
        times, time_indices = plates.time_points([(image.drop, image.place) for image in members])
        for image, time in zip(members, time_indices, strict=True):
            image.time = time
        hits = [(image.drop, image.time, image.hit) for image in members]
        for image, new in zip(members, plates.new_hits(hits, len(times) - 1), strict=True):
            image.new = new
        shape = plates.plate_format({image.position for image in members if image.position is not None})
        drops = sorted({image.place.drop for image in members}, key=lambda drop: (len(drop), drop))
        by_name.append(Plate(image_files.as_text(_title(name, folder, by_plate)), shape, drops, times))
    latest: dict[Hashable, DropImage] = {}
    for image in images:
        other = latest.setdefault(image.drop, image)
        if (-image.time, image.rank) < (-other.time, other.rank):
            latest[image.drop] = image
    for image in latest.values():
        image.latest = True
    return by_name


def _title(name: str, folder: str, plates: Iterable[tuple[str, str]]) -> str:
    """Returns a plate's name, with its folder if another of `plates` has the name: `03c3 in lab 2`."""
    folders = [other for named, other in plates if named == name]
    if len(folders) == 1:
        return name
    below = os.path.relpath(f"/{folder}", os.path.commonpath([f"/{other}" for other in folders]))
    return f"{name} in {below}"


# Thumbnails and overlays


def usual_size(images: int) -> int:
    """Returns the longer side, in pixels, that keeps a page of this many images small enough for browsers."""
    return next((size for most, size in _SIZES if images <= most), _SMALL)


def thumbnail(encoded: bytes, size: int) -> Thumbnail | None:
    """Returns a JPEG whose longer side has at most `size` pixels; None if the image does not decode.

    encoded: JPEG or PNG, as `marco_data.image_files.encoded_image` returns it.
    """
    picture = pixels.picture(encoded, size)
    return None if picture is None else _shrink(picture, size)


def _shrink(picture: Image.Image, size: int) -> Thumbnail:
    picture.thumbnail((size, size), Image.Resampling.BICUBIC)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=QUALITY)
    return Thumbnail(jpeg.getvalue(), picture.width, picture.height)


def draw_overlays(
    classifier: "marco_model.LoadedClassifier",
    images: Sequence[DropImage],
    crystals: Sequence[int],
    options: Options,
    size: int,
) -> dict[Path, Thumbnail]:
    """Returns overlays of the images with the highest crystal scores, by path, of at most `size` pixels a side.

    Each explains the crystal class that scored highest in the image. The files are read again, one at a time.
    """
    from marco_model import attribution

    gradient = attribution.class_gradient(classifier.logits)
    ranked = sorted(images, key=lambda image: image.rank)[: options.explain]
    overlays: dict[Path, Thumbnail] = {}
    with progress.progress("explaining", len(ranked)) as advance:
        for image in ranked:
            inputs = classifier.images([options.read(image.path)])[0]
            samples = options.samples or attribution.SAMPLES
            importance = attribution.smoothgrad(gradient, inputs, _best(image, crystals), samples=samples)
            picture = np.ascontiguousarray(attribution.overlay(inputs, importance))
            overlays[image.path] = _shrink(Image.fromarray(picture), size)
            advance(1)
    return overlays


def _best(image: DropImage, crystals: Sequence[int]) -> int:
    """Returns the crystal class that scored highest."""
    return max(crystals, key=lambda number: float(image.scores[number]))


# The page


@dataclasses.dataclass(frozen=True)
class Page:
    """The content of a report.

    `crystals`: indices of the classes that mean crystals. `explain`: the command that makes an overlay, without class
    and path. `failures`: files that could not be scored, and why. `overlays`: pictures of what indicates crystals.
    """

    classifier: "marco_model.LoadedClassifier"
    crystals: Sequence[int]
    explain: Sequence[str]
    plates: Sequence[Plate]
    images: Sequence[DropImage]
    failures: Sequence[tuple[str, str]]
    overlays: Mapping[Path, Thumbnail]

    def render(self) -> str:
        """Returns the page as HTML. Text from file names or the model is escaped, as text or as JSON."""
        style, *scripts = ((PAGE_FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", *SCRIPTS))
        script = "\n".join(('"use strict";', *scripts))
        return (
            pages.environment(PAGE_FOLDER)
            .get_template("template.html.jinja")
            .render(page=self, made=datetime.datetime.now(), style=style, script=script, **self.summary())
        )

    def summary(self) -> dict[str, Any]:
        """Returns the title and the counts at the head of the page.

        `hits` counts drops whose latest image shows crystals, `loose_hits` such images without a well.
        """
        placed = [image for image in self.images if image.plate is not None]
        title = f"{len(self.plates)} plates" if self.plates else "Drop images"
        if len(placed) < len(self.images):
            title = "Drop images"
        elif len(self.plates) == 1:
            title = f"Plate {self.plates[0].name}"
        predicted = [int(image.scores.argmax()) for image in self.images]
        return {
            "title": title,
            "by_class": [(name, predicted.count(index)) for index, name in enumerate(self.classifier.classes)],
            "placed": len(placed),
            "drops": len({image.drop for image in placed}),
            "times": max((len(plate.times) for plate in self.plates), default=1),
            "hits": sum(image.latest and image.hit for image in placed),
            "loose_hits": sum(image.hit for image in self.images if image.plate is None),
            "new": len({image.drop for image in placed if image.new}),
            "unknown": sum(image.flag == prediction.UNKNOWN for image in self.images),
        }

    def data(self) -> dict[str, Any]:
        """Returns the data of the scripts, ready for JSON: scores with the seven digits of scores.csv."""
        return {
            "model": self.classifier.name,
            "classes": list(self.classifier.classes),
            "crystals": list(self.crystals),
            "calibrated": self.classifier.temperature != 1,
            "plates": [
                {
                    "name": plate.name,
                    "rows": plates.row_names(plate.format),
                    "columns": plate.format.columns,
                    "drops": plate.drops,
                    "times": [time._asdict() for time in plate.times],
                }
                for plate in self.plates
            ],
            "images": [self._image(image) for image in self.images],
        }

    def _image(self, image: DropImage) -> dict[str, Any]:
        path = image_files.as_text(image.path)
        explained = self.classifier.classes[_best(image, self.crystals)]
        data: dict[str, Any] = {
            "path": path,
            "digest": image.digest,
            "key": image.mark_key,
            "flag": image.flag,
            "unusable": image.flag in pixels.UNUSABLE,
            "plate": image.plate,
            "well": image.well,
            "drop": image.place.drop,
            "at": list(image.position) if image.position else None,
            "time": image.time,
            "inspection": image.place.inspection,
            "date": image.place.date.replace("T", " "),
            "class": int(image.scores.argmax()),
            "scores": _digits(image.scores),
            "score": round(image.score, 7),
            "hit": image.hit,
            "latest": image.latest,
            "new": image.new,
            "by_now": image.course and round(image.course.by_now, 7),
            "since": image.course.since if image.course else "",
            "thumbnail": _picture(image.thumbnail.result()),
            "overlay": _picture(self.overlays.get(image.path)),
            "explain": shlex.join([*self.explain, "--class", explained, path]),
        }
        if self.classifier.temperature != 1:
            probabilities = calibration.calibrate(image.scores[None], self.classifier.temperature)[0]
            data["probabilities"] = _digits(probabilities)
            data["probability"] = round(float(plates.crystal_score(probabilities, self.crystals)), 7)
        return data


def _digits(scores: np.ndarray) -> list[float]:
    return [round(float(score), 7) for score in scores]


def _picture(picture: Thumbnail | None) -> dict[str, Any] | None:
    return picture and {**picture._asdict(), "jpeg": base64.b64encode(picture.jpeg).decode()}
