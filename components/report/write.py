"""A report as files; needs no TFX."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.evaluator import prediction_table, results
from components.evaluator.images import encoded_images
from components.report import figures as drawn
from components.report.names import FIGURES, HTML_FILE, JSON_FILE
from components.report.numbers import numbers
from components.report.options import ReportOptions
from components.report.page import page
from components.report.pictures import overlays, thumbnail
from marco_model.errors import InputError
from marco_model.model_directory import read_metadata

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def write_report(
    folder: Path,
    *,
    evaluation_uri: str,
    examples_uri: str,
    split: str,
    saved_model: Path,
    options: ReportOptions,
    decision: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes `report.html`, `report.json` and `figures/*.svg` into `folder` and returns the content of the JSON.

    `evaluation_uri`: the Evaluator's; `examples_uri` and `split`: the images that were judged; `saved_model`: the model
    that judged them, on this machine; `decision`: the gate's. `about`: what the report says of where the run comes
    from, to which the model's name is added.

    Raises:
        InputError: the evaluation has no predictions, or the examples are not those that were judged.
    """
    frame = prediction_table.read(evaluation_uri)
    metadata = read_metadata(saved_model)
    report = numbers(
        frame,
        results.slice_metrics(evaluation_uri),
        options,
        temperature=metadata.get("temperature", 1.0),
        decision=decision,
        about={"model": metadata.get("name", ""), **(about or {})},
    )
    pictures = _pictures(report, frame, examples_uri, split, saved_model if metadata else None, options)
    # Figures and page are made of what is written, to the last digit.
    report = json.loads(json.dumps(report, allow_nan=False))
    figures = drawn.figures(report)
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    for name, svg in figures.items():
        (folder / FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")
    (folder / JSON_FILE).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / HTML_FILE).write_text(page(report, figures, pictures), encoding="utf-8")
    return dict(report)


def _pictures(
    report: dict[str, Any],
    frame: pd.DataFrame,
    examples_uri: str,
    split: str,
    saved_model: Path | None,
    options: ReportOptions,
) -> dict[str, bytes]:
    """Returns the pictures by the names that the page asks for, and tells in `report` how many overlays there are."""
    wrong = [(image["row"], kind["predicted"]) for kind in report["errors"] for image in kind["images"]]
    rows = sorted({row for row, _ in wrong} | {image["row"] for image in report["disagreements"]})
    encoded = dict(zip(rows, encoded_images(examples_uri, split, frame.iloc[rows]), strict=True))
    pictures = {f"image/{row}": thumbnail(one) for row, one in encoded.items()}
    if options.overlays and wrong and saved_model:
        begun = time.monotonic()
        classes = [report["classes"].index(predicted) for _, predicted in wrong]
        made = _overlays(saved_model, [encoded[row] for row, _ in wrong], classes, options)
        pictures |= {f"overlay/{row}": one for (row, _), one in zip(wrong, made, strict=False)}
        report["pictures"] |= {"overlays": len(made), "seconds": time.monotonic() - begun}
    return pictures


def _overlays(saved_model: Path, images: list[bytes], classes: list[int], options: ReportOptions) -> list[bytes]:
    from marco_model.load import load

    try:
        return overlays(load(saved_model), images, classes, options.overlay_samples, options.overlay_seconds)
    except InputError as error:
        log.warning("The report has no overlays: %s", error)
        return []
