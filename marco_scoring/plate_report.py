"""The report of plates: scores image files as `marco_scoring.prediction` does and writes them as an HTML page.

In this order: `predict_with_report`, thumbnails, the images with their places on plates, overlays, and the page, whose
template, style and scripts are in `plate_page/`. TensorFlow is imported only for overlays.
"""

import base64
import dataclasses
import datetime
import io
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from marco_data.image_files import Acquisition, DropPlace, acquisition, as_text, drop_place, encoded_image
from marco_data.progress import progress
from marco_model import store
from marco_model.calibration import calibrate
from marco_scoring.plates import (
    Format,
    Position,
    TimePoint,
    crystal_classes,
    crystal_score,
    new_hits,
    plate_format,
    position,
    row_names,
    time_points,
    well_name,
)
from marco_scoring.prediction import BATCH_SIZE, Outcome, predict

if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier

QUALITY = 72
SMALLEST, LARGEST = 64, 1024
_SIZES = ((800, 480), (2_500, 320))
"""Number of images and their size in pixels: up to 800 get 480, about 15 MB of HTML (docs/plates.md)."""
_SMALL = 200


@dataclasses.dataclass(frozen=True)
class Options:
    """How to make a report.

    explain_command: the command that the page shows for images without an overlay, without class and path.
    explain: how many of the best images get an overlay. samples: noisy copies for each, as in `smoothgrad`; None for
    its default. thumbnail_size: the longer side in pixels; None for a size that keeps the file small enough.
    crystal_classes: names of the classes to rank by; empty for all that are named after crystals.
    """

    explain_command: Sequence[str]
    explain: int = 0
    thumbnail_size: int | None = None
    crystal_classes: Sequence[str] = ()
    samples: int | None = None


def predict_with_report(
    classifier: "LoadedClassifier",
    files: Sequence[Path],
    output: Path,
    report: Path,
    options: Options,
    batch_size: int = BATCH_SIZE,
) -> Outcome:
    """Scores `files` into `output`, as `predict` does, and writes the HTML file `report`.

    Raises InputError before scoring if the classifier has no such classes, or no gradients to explain.
    """
    crystals = crystal_classes(classifier.classes, options.crystal_classes)
    if options.explain:
        _ = classifier.logits
    size = options.thumbnail_size or usual_size(len(files))
    with Collector(size) as collector:
        outcome = predict(classifier, files, output, batch_size, collector)
    overlays = {}
    if options.explain:
        overlays = draw_overlays(classifier, collector.images, crystals, options.explain, size, options.samples)
    content = render(
        Report(
            model=classifier.name,
            classes=classifier.classes,
            crystals=crystals,
            temperature=classifier.temperature,
            images=collector.images,
            failures=collector.failures,
            overlays=overlays,
            explain=options.explain_command,
            made=datetime.datetime.now(),
        )
    )
    with store.whole_file(report) as file:
        file.write(content)
    return outcome


class Thumbnail(NamedTuple):
    """A JPEG and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def usual_size(images: int) -> int:
    """Returns the longer side, in pixels, that keeps a page of this many images small enough for browsers."""
    return next((size for most, size in _SIZES if images <= most), _SMALL)


def thumbnail(encoded: bytes, size: int) -> Thumbnail | None:
    """Returns a JPEG whose longer side has at most `size` pixels; None if Pillow cannot decode the image.

    encoded: JPEG or PNG, as `marco_data.image_files.encoded_image` returns it. A JPEG is decoded at the smallest scale
    that is still larger, which takes a fraction of the time. Orientation tags are not applied, as in scoring.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG"))
        image.draft("RGB", (size, size))
        picture = _eight_bits(image).convert("RGB")
    except Exception:  # Pillow's decoders raise many kinds of errors; the image was scored and is listed anyway.
        return None
    picture.thumbnail((size, size), Image.Resampling.BICUBIC)
    return as_thumbnail(picture)


def as_thumbnail(picture: Image.Image) -> Thumbnail:
    """Encodes an RGB picture as it is."""
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=QUALITY)
    return Thumbnail(jpeg.getvalue(), picture.width, picture.height)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns an image of 16 bits as TensorFlow reads it, by its upper byte; Pillow would clip it at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


MOST_WAITING = 16
"""Full images that wait for their thumbnails, besides the batches being read and scored."""


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """A file, its scores, float32 [classes], and its thumbnail if one could be made."""

    path: Path
    scores: np.ndarray
    thumbnail: Thumbnail | None


@dataclasses.dataclass(frozen=True)
class Failure:
    """A file that could not be scored, and why."""

    path: Path
    reason: str


class Collector:
    """An observer for `marco_scoring.prediction.predict`; a context that ends when all thumbnails are made.

    Thumbnails are made on a separate thread, while the next batch is scored.
    """

    def __init__(self, thumbnail_size: int) -> None:
        self.failures: list[Failure] = []
        self._size = thumbnail_size
        self._scored: list[tuple[Path, np.ndarray]] = []
        self._thumbnails: list[Future[Thumbnail | None]] = []
        self._maker = ThreadPoolExecutor(1)

    def __call__(self, path: Path, image: bytes | None, result: np.ndarray | str) -> None:
        """Takes one file; waits if too many thumbnails are still to be made."""
        if isinstance(result, str) or image is None:
            self.failures.append(Failure(path, str(result)))
            return
        self._scored.append((path, result))
        self._thumbnails.append(self._maker.submit(thumbnail, image, self._size))
        if len(self._thumbnails) > MOST_WAITING:
            self._thumbnails[-MOST_WAITING - 1].result()

    def __enter__(self) -> "Collector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._maker.shutdown(wait=True, cancel_futures=kind is not None)

    @property
    def images(self) -> list[ScoredImage]:
        """The scored images, in order."""
        return [
            ScoredImage(path, scores, future.result())
            for (path, scores), future in zip(self._scored, self._thumbnails, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Plate:
    """A plate, as named in file names; `drops` are the names of the drops in its wells, in order."""

    name: str
    format: Format
    drops: list[str]
    times: list[TimePoint]


@dataclasses.dataclass
class Placed:
    """A scored image and its place.

    `plate`: index into the plates; None, as `position`, if its name has no well of a plate. `time`: index into the
    plate's time points. `hit`: the class with the highest score is a crystal class. `new`: it is the first hit of its
    drop, at the plate's last time point.
    """

    image: ScoredImage
    place: DropPlace
    taken: Acquisition
    hit: bool
    position: Position | None = None
    plate: int | None = None
    time: int = 0
    new: bool = False

    @property
    def well(self) -> str:
        """The well as people write it: `G6`, or HWMRI's number; empty without a well."""
        if self.position is None:
            return ""
        return self.place.well if self.place.well.isdigit() else well_name(self.position)


def place_images(images: Sequence[ScoredImage], crystals: Sequence[int]) -> tuple[list[Plate], list[Placed]]:
    """Returns the plates, by name, and all images, in the order given, each with its place and its time."""
    placed = [_place(image, crystals) for image in images]
    by_plate: dict[str, list[Placed]] = defaultdict(list)
    for image in placed:
        if image.position is not None:
            by_plate[image.place.plate].append(image)
    plates = []
    for index, name in enumerate(sorted(by_plate)):
        members = by_plate[name]
        times, time_indices = time_points([(_drop(image), image.taken) for image in members])
        for image, time in zip(members, time_indices, strict=True):
            image.plate, image.time = index, time
        hits = [(_drop(image), image.time, image.hit) for image in members]
        for image, new in zip(members, new_hits(hits, len(times) - 1), strict=True):
            image.new = new
        positions = {image.position for image in members if image.position is not None}
        drops = sorted({image.place.drop for image in members}, key=lambda drop: (len(drop), drop))
        plates.append(Plate(name, plate_format(positions), drops, times))
    return plates, placed


def _place(image: ScoredImage, crystals: Sequence[int]) -> Placed:
    place = drop_place(image.path.name)
    hit = int(image.scores.argmax()) in crystals
    return Placed(image, place, acquisition(image.path.name), hit, position(place.well))


def _drop(image: Placed) -> tuple[Position | None, str]:
    return image.position, image.place.drop


def draw_overlays(
    classifier: "LoadedClassifier",
    images: Sequence[ScoredImage],
    crystals: Sequence[int],
    count: int,
    size: int,
    samples: int | None = None,
) -> dict[Path, Thumbnail]:
    """Returns overlays of the `count` images with the highest crystal scores, by path, of at most `size` pixels a side.

    Each explains the crystal class that scored highest in the image. The files are read again, one at a time. Raises
    InputError if the model was exported without gradients.
    """
    from marco_model.attribution import SAMPLES, class_gradient, overlay, smoothgrad

    gradient = class_gradient(classifier.logits)
    ranked = sorted(images, key=lambda image: -float(crystal_score(image.scores, crystals)))[:count]
    overlays: dict[Path, Thumbnail] = {}
    with progress("explaining", len(ranked)) as advance:
        for image in ranked:
            inputs = classifier.images([encoded_image(image.path)])[0]
            index = max(crystals, key=lambda number: image.scores[number])
            attribution = smoothgrad(gradient, inputs, int(index), samples=samples or SAMPLES)
            picture = Image.fromarray(np.ascontiguousarray(overlay(inputs, attribution)))
            picture.thumbnail((size, size))
            overlays[image.path] = as_thumbnail(picture)
            advance(1)
    return overlays


PAGE_FOLDER = Path(__file__).with_name("plate_page")
STYLE = "style.css"
SCRIPTS = ("data.js", "map.js", "browse.js", "lightbox.js", "main.js")
"""In the order in which the page runs them."""


@dataclasses.dataclass(frozen=True)
class Report:
    """The content of a report.

    `crystals`: indices of the classes that mean crystals. `temperature`: what calibrates scores; 1 changes nothing.
    `overlays`: pictures of what indicates crystals, by path. `explain`: the command that makes one, without its path.
    """

    model: str
    classes: Sequence[str]
    crystals: Sequence[int]
    temperature: float
    images: Sequence[ScoredImage]
    failures: Sequence[Failure]
    overlays: Mapping[Path, Thumbnail]
    explain: Sequence[str]
    made: datetime.datetime


def render(report: Report) -> str:
    """Returns the page. Text from file names or the model is escaped, as text or as JSON."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    scripts = "\n".join((PAGE_FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    plates, placed = place_images(report.images, report.crystals)
    return environment.get_template("template.html.jinja").render(
        report=report,
        data=page_data(report, plates, placed),
        style=Markup((PAGE_FOLDER / STYLE).read_text(encoding="utf-8")),
        script=Markup(scripts),
        failures=[(as_text(failure.path), failure.reason) for failure in report.failures],
        **summary(report, plates, placed),
    )


def summary(report: Report, plates: Sequence[Plate], placed: Sequence[Placed]) -> dict[str, Any]:
    """Returns the counts at the head of the page; `hits` are of each plate's last time point, and of images without."""
    by_class = Counter(int(image.scores.argmax()) for image in report.images)
    latest = [image for image in placed if image.plate is None or image.time == len(plates[image.plate].times) - 1]
    return {
        "title": f"Plate {plates[0].name}"
        if len(plates) == 1
        else f"{len(plates)} plates"
        if plates
        else "Drop images",
        "by_class": [(name, by_class[index]) for index, name in enumerate(report.classes)],
        "drops": len({(image.plate, image.position, image.place.drop) for image in placed if image.plate is not None}),
        "unplaced": sum(image.plate is None for image in placed),
        "times": max((len(plate.times) for plate in plates), default=1),
        "hits": len({(image.plate, image.position, image.place.drop, _own(image)) for image in latest if image.hit}),
        "new": len({(image.plate, image.position, image.place.drop) for image in placed if image.new}),
    }


def page_data(report: Report, plates: Sequence[Plate], placed: Sequence[Placed]) -> dict[str, Any]:
    """Returns the data of the scripts, ready for JSON: scores with the seven digits of scores.csv."""
    return {
        "model": report.model,
        "classes": list(report.classes),
        "crystals": list(report.crystals),
        "calibrated": report.temperature != 1,
        "plates": [_plate(plate) for plate in plates],
        "images": [_image(report, image) for image in placed],
    }


def _plate(plate: Plate) -> dict[str, Any]:
    return {
        "name": as_text(plate.name),
        "rows": row_names(plate.format),
        "columns": plate.format.columns,
        "drops": plate.drops,
        "times": [time._asdict() for time in plate.times],
    }


def _image(report: Report, placed: Placed) -> dict[str, Any]:
    image = placed.image
    data: dict[str, Any] = {
        "path": as_text(image.path),
        "plate": placed.plate,
        "well": placed.well,
        "drop": placed.place.drop,
        "at": list(placed.position) if placed.position else None,
        "time": placed.time,
        "date": placed.taken.date.replace("T", " "),
        "class": int(image.scores.argmax()),
        "scores": _digits(image.scores),
        "score": round(float(crystal_score(image.scores, report.crystals)), 7),
        "hit": placed.hit,
        "new": placed.new,
        "thumbnail": _picture(image.thumbnail),
        "overlay": _picture(report.overlays.get(image.path)),
        "explain": _explain(report, image),
    }
    if report.temperature != 1:
        probabilities = calibrate(image.scores[None], report.temperature)[0]
        data["probabilities"] = _digits(probabilities)
        data["probability"] = round(float(crystal_score(probabilities, report.crystals)), 7)
    return data


def _digits(scores: Any) -> list[float]:
    return [round(float(score), 7) for score in scores]


def _picture(thumbnail: Thumbnail | None) -> dict[str, Any] | None:
    if thumbnail is None:
        return None
    return {"jpeg": base64.b64encode(thumbnail.jpeg).decode(), "width": thumbnail.width, "height": thumbnail.height}


def _explain(report: Report, image: ScoredImage) -> str:
    """Returns the shell command that explains this image's crystal score."""
    index = max(report.crystals, key=lambda number: float(image.scores[number]))
    return shlex.join([*report.explain, "--class", report.classes[index], as_text(image.path)])


def _own(image: Placed) -> Path | None:
    """Distinguishes images without a well."""
    return image.image.path if image.plate is None else None
