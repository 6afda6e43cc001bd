"""The report's files: `report.json`, its figures, one self-contained HTML page of both, and the model card.

The page has no script, makes no request and holds no number that is not in `report.json`.
"""

import base64
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import markupsafe
import pandas as pd

import marco_model
from components import evaluations, settings
from components.report import numbers, plots
from marco_data import pages
from marco_model import errors, model_directory

log = logging.getLogger(__name__)

HTML_FILE, JSON_FILE, CARD_FILE, FIGURES = "report.html", "report.json", "MODEL_CARD.md", "figures"
TEMPLATES = Path(__file__).parent / "templates"
_ABOUT = ("created", "synthetic", "data_fingerprint", "mlflow_run_id", "commit", "dirty")
_SPACE, _MINUS, _NONE = "\u202f", "\u2212", "–"
_NETWORK = ("architecture", "variant", "depth_multiplier", "input_size")
_SCORE_STEP = Decimal("1e-7")


def write_report(
    folder: Path,
    *,
    evaluation_uri: str,
    examples_uri: str,
    split: str,
    saved_model: Path,
    options: settings.ReportOptions,
    decision: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes `report.html`, `report.json`, `MODEL_CARD.md` and `figures/*.svg` into `folder`; returns the JSON.

    `evaluation_uri`: the Evaluator's; `examples_uri` and `split`: the images that were judged; `saved_model`: the model
    that judged them, on this machine; `decision`: the gate's. `about`: where the run comes from, to which the
    model's name and network are added. `training`: how it was trained.

    Raises `InputError` if the evaluation has no predictions, or the examples are not those that were judged.
    """
    frame = evaluations.read_predictions(evaluation_uri)
    metadata = model_directory.read_metadata(saved_model)
    report = numbers.numbers(
        frame,
        evaluations.slice_metrics(evaluation_uri),
        options,
        temperature=metadata.get("temperature", 1.0),
        decision=decision,
        about={
            "model": metadata.get("name", ""),
            "network": {name: metadata[name] for name in _NETWORK if metadata.get(name)},
            "license": options.license,
            **(about or {}),
        },
        training=training,
    )
    pictures = _pictures(report, frame, examples_uri, split, saved_model if metadata else None, options)
    # Figures and page show exactly what is written, to the last digit.
    report = json.loads(json.dumps(report, allow_nan=False))
    figures = plots.figures(report)
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    for name, svg in figures.items():
        (folder / FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")
    (folder / JSON_FILE).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / HTML_FILE).write_text(page(report, figures, pictures), encoding="utf-8")
    (folder / CARD_FILE).write_text(card(report), encoding="utf-8")
    return dict(report)


def _pictures(
    report: dict[str, Any],
    frame: pd.DataFrame,
    examples_uri: str,
    split: str,
    saved_model: Path | None,
    options: settings.ReportOptions,
) -> dict[str, bytes]:
    """Returns the pictures by the names that the page asks for, and writes the number of overlays into `report`."""
    wrong = [(image["row"], kind["predicted"]) for kind in report["errors"] for image in kind["images"]]
    rows = sorted({row for row, _ in wrong} | {image["row"] for image in report["disagreements"]})
    encoded = dict(zip(rows, evaluations.encoded_images(examples_uri, split, frame.iloc[rows]), strict=True))
    thumbnails = {f"image/{row}": plots.thumbnail(image) for row, image in encoded.items()}
    pictures = {name: picture for name, picture in thumbnails.items() if picture is not None}
    if options.overlays and wrong and saved_model:
        begun = time.monotonic()
        classes = [report["classes"].index(predicted) for _, predicted in wrong]
        drawn = _overlays(saved_model, [encoded[row] for row, _ in wrong], classes, options)
        pictures |= {f"overlay/{row}": overlay for (row, _), overlay in zip(wrong, drawn, strict=False)}
        report["pictures"] |= {"overlays": len(drawn), "seconds": time.monotonic() - begun}
    return pictures


def _overlays(
    saved_model: Path, images: list[bytes], classes: list[int], options: settings.ReportOptions
) -> list[bytes]:
    try:
        classifier = marco_model.open_classifier(saved_model)
        return plots.overlays(classifier, images, classes, options.overlay_samples, options.overlay_seconds)
    except errors.InputError as error:
        log.warning("The report has no overlays: %s", error)
        return []


def _rounded_down(value: float) -> str:
    """Rounds down to the digits of scores.csv, so that a shown threshold finds no fewer images than stated."""
    return f"{Decimal(repr(value)).quantize(_SCORE_STEP, ROUND_FLOOR):f}"


def _signed(text: str) -> str:
    return text.replace("-", _MINUS) if float(text) else text.lstrip("+-")


FORMATS: dict[str, Callable[[float], str]] = {
    "count": lambda value: f"{int(value):,}",
    "percent": lambda value: f"{100 * value:.1f}{_SPACE}%",
    "fine_percent": lambda value: f"{100 * value:.2f}{_SPACE}%",
    "whole_percent": lambda value: f"{100 * value:.3g}{_SPACE}%",
    "share": lambda value: f"{100 * value:.1f}",
    "points": lambda value: _signed(f"{100 * value:+.1f}"),
    "score": lambda value: f"{value:.3f}",
    "threshold": _rounded_down,
    "bound": lambda value: f"{value:.12g}",
    "seconds": lambda value: f"{value:.0f}{_SPACE}s",
    "identifier": lambda value: str(int(value)),
}
"""How a number is shown, by the name that the template gives."""


def at(report: Mapping[str, Any], source: str) -> Any:
    """Returns the value at `source`, such as `confusion.rows.0.count`."""
    value: Any = report
    for part in source.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def page(
    report: Mapping[str, Any],
    figures: Mapping[str, str],
    pictures: Mapping[str, bytes],
    template: str = "report.html.jinja",
) -> str:
    """Returns the HTML.

    `figures`: name → SVG; `pictures`: `image/ROW` and `overlay/ROW` → JPEG, the row being that of a disagreement or
    error. Each number and name is in an element that names its place in `report` (`data-source`).
    """

    def number(source: str, kind: str) -> markupsafe.Markup:
        value = at(report, source)
        shown = _NONE if value is None else FORMATS[kind](value)
        raw = "" if value is None else repr(value)
        element = markupsafe.Markup('<data value="{}" data-source="{}" data-format="{}">{}</data>')
        return element.format(raw, source, kind, shown)

    def text(source: str) -> markupsafe.Markup:
        return markupsafe.Markup('<span data-source="{}">{}</span>').format(source, at(report, source))

    environment = pages.environment(TEMPLATES)
    environment.globals.update(
        number=number, text=text, figure_uri=lambda name: _uri(figures[name].encode(), "svg+xml")
    )
    uris = {name: _uri(encoded, "jpeg") for name, encoded in pictures.items()}
    return environment.get_template(template).render(report=report, figures=figures, pictures=uris)


def leave_out_page(content: Mapping[str, Any]) -> str:
    """Returns the HTML of `components.leave_out`'s content, as `page` does."""
    return page(content, {}, {}, "leave_out.html.jinja")


def card(report: Mapping[str, Any]) -> str:
    """Returns the model card, Markdown with Hugging Face's YAML header, whose numbers are those of `report`.

    The sections follow Mitchell et al. 2019 (arXiv:1810.03993).
    """

    def number(value: float | None, kind: str) -> str:
        return _NONE if value is None else FORMATS[kind](value)

    def interval(share: Mapping[str, Any]) -> str:
        if share["share"] is None:
            return _NONE
        return (
            f"{number(share['share'], 'percent')} ({number(share['low'], 'share')} to {number(share['high'], 'share')})"
        )

    environment = pages.environment(TEMPLATES, autoescape=False)
    environment.filters.update(number=number, interval=interval, cell=_cell, yaml=json.dumps)
    about = {**dict.fromkeys(("license", "splits", "network", "split", *_ABOUT)), **report["about"]}
    shown = {**report, "about": about}
    text = environment.get_template("model_card.md.jinja").render(report=shown, name=about["model"] or "classifier")
    return re.sub(r"\n{3,}", "\n\n", text)


def _cell(text: object) -> str:
    """Returns a name as text of one line in a table's cell, with nothing that Markdown or HTML reads as markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def _uri(encoded: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
