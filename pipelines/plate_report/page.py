"""The report as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marco_data.file_names import as_text
from marco_model.calibration import calibrated
from pipelines.plate_report.collector import Failure, ScoredImage
from pipelines.plate_report.crystal_classes import crystal_score
from pipelines.plate_report.layout import row_names
from pipelines.plate_report.plates import Placed, Plate, place_images
from pipelines.plate_report.thumbnails import Thumbnail

HERE = Path(__file__).parent
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
        probabilities = calibrated(image.scores[None], report.temperature)[0]
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
