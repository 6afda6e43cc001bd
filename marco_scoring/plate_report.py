"""Scores files as `marco_scoring.prediction` does and writes the report of them."""

from __future__ import annotations

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

from marco_data.image_files import Acquisition, DropPlace, acquisition, as_text, drop_place, encoded_image
from marco_data.progress import progress
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
    from PIL import Image

QUALITY = 72
SMALLEST, LARGEST = 64, 1024
_SIZES = ((800, 480), (2_500, 320))
"""Up to so many images get so many pixels: 800 of 480 are about 15 MB of HTML (docs/plates.md)."""
_SMALL = 200


class Thumbnail(NamedTuple):
    """A JPEG and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


def usual_size(images: int) -> int:
    """Returns the longer side, in pixels, that keeps a page of so many images at a size that browsers open."""
    return next((size for most, size in _SIZES if images <= most), _SMALL)


def thumbnail(encoded: bytes, size: int) -> Thumbnail | None:
    """Makes a JPEG of which the longer side has `size` pixels at most; None where Pillow cannot decode the image.

    encoded: JPEG or PNG, as `marco_data.image_files.encoded_image` returns it. A JPEG is decoded at the smallest scale
    that is still larger, which takes a fraction of the time. Orientation tags are not applied, as in scoring.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG"))
        image.draft("RGB", (size, size))
        picture = _eight_bits(image).convert("RGB")
    except Exception:  # Pillow's decoders raise what they stumble over; what TensorFlow scored is listed all the same.
        return None
    picture.thumbnail((size, size), Image.Resampling.BICUBIC)
    return as_thumbnail(picture)


def as_thumbnail(picture: Image.Image) -> Thumbnail:
    """Encodes an RGB picture as it is."""
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=QUALITY)
    return Thumbnail(jpeg.getvalue(), picture.width, picture.height)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16 bits at 255 where TensorFlow takes the upper byte."""
    if not image.mode.startswith("I"):
        return image
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


if TYPE_CHECKING:
    import numpy as np

MOST_WAITING = 16
"""Images whose thumbnails are not yet made: what is held of full images, beside the batches being read and scored."""


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
    """An observer for `marco_scoring.prediction.predict`; a context, on whose end all thumbnails are made.

    Thumbnails are made on a thread of their own, while the next batch is scored.
    """

    def __init__(self, thumbnail_size: int) -> None:
        self.failures: list[Failure] = []
        self._size = thumbnail_size
        self._scored: list[tuple[Path, np.ndarray]] = []
        self._thumbnails: list[Future[Thumbnail | None]] = []
        self._maker = ThreadPoolExecutor(1)

    def __call__(self, path: Path, image: bytes | None, result: np.ndarray | str) -> None:
        """Takes one file; waits where too many thumbnails are still to be made."""
        if isinstance(result, str) or image is None:
            self.failures.append(Failure(path, str(result)))
            return
        self._scored.append((path, result))
        self._thumbnails.append(self._maker.submit(thumbnail, image, self._size))
        if len(self._thumbnails) > MOST_WAITING:
            self._thumbnails[-MOST_WAITING - 1].result()

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._maker.shutdown(wait=True, cancel_futures=kind is not None)

    @property
    def images(self) -> list[ScoredImage]:
        """What was scored, in its order."""
        return [
            ScoredImage(path, scores, made.result())
            for (path, scores), made in zip(self._scored, self._thumbnails, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Plate:
    """A plate that file names tell of; `drops` are the names of the drops that its wells have, in their order."""

    name: str
    format: Format
    drops: list[str]
    times: list[TimePoint]


@dataclasses.dataclass
class Placed:
    """A scored image and where it belongs.

    `plate`: index into the plates; None, as `position`, where its name tells no well of one. `time`: index into the
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
        """The well as people say it: `G6`, or HWMRI's number; empty if there is none."""
        if self.position is None:
            return ""
        return self.place.well if self.place.well.isdigit() else well_name(self.position)


def place_images(images: Sequence[ScoredImage], crystals: Sequence[int]) -> tuple[list[Plate], list[Placed]]:
    """Returns the plates, by name, and all images, in the order given, each with its place and its time."""
    placed = [_placed(image, crystals) for image in images]
    by_plate: dict[str, list[Placed]] = defaultdict(list)
    for one in placed:
        if one.position is not None:
            by_plate[one.place.plate].append(one)
    plates = []
    for index, name in enumerate(sorted(by_plate)):
        members = by_plate[name]
        times, of_each = time_points([(_drop(one), one.taken) for one in members])
        for one, time in zip(members, of_each, strict=True):
            one.plate, one.time = index, time
        hits = [(_drop(one), one.time, one.hit) for one in members]
        for one, new in zip(members, new_hits(hits, len(times) - 1), strict=True):
            one.new = new
        positions = {one.position for one in members if one.position is not None}
        drops = sorted({one.place.drop for one in members}, key=lambda drop: (len(drop), drop))
        plates.append(Plate(name, plate_format(positions), drops, times))
    return plates, placed


def _placed(image: ScoredImage, crystals: Sequence[int]) -> Placed:
    place = drop_place(image.path.name)
    hit = int(image.scores.argmax()) in crystals
    return Placed(image, place, acquisition(image.path.name), hit, position(place.well))


def _drop(one: Placed) -> tuple[Position | None, str]:
    return one.position, one.place.drop


if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier


def draw_overlays(
    classifier: LoadedClassifier,
    images: Sequence[ScoredImage],
    crystals: Sequence[int],
    count: int,
    size: int,
    samples: int | None = None,
) -> dict[Path, Thumbnail]:
    """Explains the `count` images with the highest crystal scores; by path, the longer side at most `size` pixels.

    Each shows what moves the crystal class that scored highest there. The files are read again, one at a time. Raises
    InputError where the model was exported without gradients.
    """
    from PIL import Image

    from marco_model.attribution import SAMPLES, class_gradient, overlay, smoothgrad

    gradient = class_gradient(classifier.logits)
    ranked = sorted(images, key=lambda image: -float(crystal_score(image.scores, crystals)))[:count]
    made: dict[Path, Thumbnail] = {}
    with progress("explaining", len(ranked)) as advance:
        for image in ranked:
            seen = classifier.images([encoded_image(image.path)])[0]
            index = max(crystals, key=lambda number: image.scores[number])
            attribution = smoothgrad(gradient, seen, int(index), samples=samples or SAMPLES)
            picture = Image.fromarray(np.ascontiguousarray(overlay(seen, attribution)))
            picture.thumbnail((size, size))
            made[image.path] = as_thumbnail(picture)
            advance(1)
    return made


HERE = Path(__file__).with_name("plate_page")
STYLE = "style.css"
SCRIPTS = ("data.js", "map.js", "browse.js", "lightbox.js", "main.js")
"""In the order in which the page runs them."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report shows.

    `crystals`: indices of the classes that mean crystals. `temperature`: what calibrates scores; 1 changes nothing.
    `overlays`: pictures of what speaks for crystals, by path. `explain`: the command that makes one, without its path.
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


def write(report: Report, output: Path) -> None:
    """Writes the page aside and renames it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f".{output.name}.partial")
    aside.write_text(render(report), encoding="utf-8", newline="\n")
    aside.replace(output)


def render(report: Report) -> str:
    """Returns the page. What comes from file names or the model reaches it escaped, as text or as JSON."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    scripts = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    plates, placed = place_images(report.images, report.crystals)
    return environment.get_template("template.html.jinja").render(
        report=report,
        data=page_data(report, plates, placed),
        style=Markup((HERE / STYLE).read_text(encoding="utf-8")),
        script=Markup(scripts),
        failures=[(as_text(failure.path), failure.reason) for failure in report.failures],
        **summary(report, plates, placed),
    )


def summary(report: Report, plates: Sequence[Plate], placed: Sequence[Placed]) -> dict[str, Any]:
    """Returns the counts at the head of the page; `hits` are of each plate's last time point, and of images without."""
    by_class = Counter(int(image.scores.argmax()) for image in report.images)
    latest = [one for one in placed if one.plate is None or one.time == len(plates[one.plate].times) - 1]
    return {
        "title": f"Plate {plates[0].name}"
        if len(plates) == 1
        else f"{len(plates)} plates"
        if plates
        else "Drop images",
        "by_class": [(name, by_class[index]) for index, name in enumerate(report.classes)],
        "drops": len({(one.plate, one.position, one.place.drop) for one in placed if one.plate is not None}),
        "unplaced": sum(one.plate is None for one in placed),
        "times": max((len(plate.times) for plate in plates), default=1),
        "hits": len({(one.plate, one.position, one.place.drop, _own(one)) for one in latest if one.hit}),
        "new": len({(one.plate, one.position, one.place.drop) for one in placed if one.new}),
    }


def page_data(report: Report, plates: Sequence[Plate], placed: Sequence[Placed]) -> dict[str, Any]:
    """Returns what the scripts read, ready for JSON: scores with the seven digits of scores.csv."""
    return {
        "model": report.model,
        "classes": list(report.classes),
        "crystals": list(report.crystals),
        "calibrated": report.temperature != 1,
        "plates": [_plate(plate) for plate in plates],
        "images": [_image(report, one) for one in placed],
    }


def _plate(plate: Plate) -> dict[str, Any]:
    return {
        "name": as_text(plate.name),
        "rows": row_names(plate.format),
        "columns": plate.format.columns,
        "drops": plate.drops,
        "times": [time._asdict() for time in plate.times],
    }


def _image(report: Report, one: Placed) -> dict[str, Any]:
    image = one.image
    data: dict[str, Any] = {
        "path": as_text(image.path),
        "plate": one.plate,
        "well": one.well,
        "drop": one.place.drop,
        "at": list(one.position) if one.position else None,
        "time": one.time,
        "date": one.taken.date.replace("T", " "),
        "class": int(image.scores.argmax()),
        "scores": _digits(image.scores),
        "score": round(float(crystal_score(image.scores, report.crystals)), 7),
        "hit": one.hit,
        "new": one.new,
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


def _picture(made: Thumbnail | None) -> dict[str, Any] | None:
    if made is None:
        return None
    return {"jpeg": base64.b64encode(made.jpeg).decode(), "width": made.width, "height": made.height}


def _explain(report: Report, image: ScoredImage) -> str:
    """The command that explains this image's crystal score, for a shell."""
    index = max(report.crystals, key=lambda number: float(image.scores[number]))
    return shlex.join([*report.explain, "--class", report.classes[index], as_text(image.path)])


def _own(one: Placed) -> Path | None:
    """Tells images without a well apart."""
    return one.image.path if one.plate is None else None


if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier


@dataclasses.dataclass(frozen=True)
class Options:
    """How to make a report.

    explain_command: what it tells to run for an overlay that it has not, without class and path.
    explain: for how many of the best images it has one. samples: noisy copies for each, as in `smoothgrad`; None for
    its own number. thumbnail_size: the longer side in pixels; None for what keeps the file small enough.
    crystal_classes: names of the classes to rank by; none for all that are named after crystals.
    """

    explain_command: Sequence[str]
    explain: int = 0
    thumbnail_size: int | None = None
    crystal_classes: Sequence[str] = ()
    samples: int | None = None


def predict_with_report(
    classifier: LoadedClassifier,
    files: Sequence[Path],
    output: Path,
    report: Path,
    options: Options,
    batch_size: int = BATCH_SIZE,
) -> Outcome:
    """Scores `files` into `output`, as `predict` does, and writes the HTML file `report`.

    Raises InputError before anything is scored where the classifier has no such classes, or no gradients to explain.
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
    write(
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
        ),
        report,
    )
    return outcome
