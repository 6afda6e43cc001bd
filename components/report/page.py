"""One self-contained HTML page of `report.json`, figures and pictures: no script, no request, no number of its own."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
_SPACE, _MINUS, _NONE = "\u202f", "\u2212", "–"
_SCORE_STEP = Decimal("1e-7")


def _rounded_down(value: float) -> str:
    """To the digits of scores.csv, and never up: whoever goes by what is shown finds no fewer images than it says."""
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


def page(report: Mapping[str, Any], figures: Mapping[str, str], pictures: Mapping[str, bytes]) -> str:
    """Returns the HTML.

    `figures`: name → SVG; `pictures`: `image/ROW` and `overlay/ROW` → JPEG, the row being that of a disagreement or
    error. Every number and name is shown in an element that says where in `report` it stands (`data-source`).
    """
    import jinja2
    from markupsafe import Markup

    def number(source: str, kind: str) -> Markup:
        value = at(report, source)
        shown = _NONE if value is None else FORMATS[kind](value)
        raw = "" if value is None else repr(value)
        return Markup('<data value="{}" data-source="{}" data-format="{}">{}</data>').format(raw, source, kind, shown)

    def text(source: str) -> Markup:
        return Markup('<span data-source="{}">{}</span>').format(source, at(report, source))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        number=number, text=text, figure_uri=lambda name: _uri(figures[name].encode(), "svg+xml")
    )
    uris = {name: _uri(encoded, "jpeg") for name, encoded in pictures.items()}
    return environment.get_template("report.html.jinja").render(report=report, figures=figures, pictures=uris)


def _uri(encoded: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
