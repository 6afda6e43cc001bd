"""Thumbnails of images, and what a score hangs on drawn over them."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

# Drawn in these colours, which become CSS variables: name -> (drawn and light, dark).
_COLOURS = {
    "ink": ("#1c2733", "#e4eaf0"),
    "faint": ("#8695a4", "#7f8d9b"),
    "line": ("#d9e0e6", "#34414d"),
    "first": ("#0b7285", "#4dc4d6"),
    "second": ("#c2410c", "#fb9a5c"),
    "third": ("#6d4ba3", "#b79ce8"),
}
_CYCLE = ("first", "second", "third", "faint", "ink")


def figures(report: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SVG of each figure by its name: `roc`, `calibration` and, with a class to look for, `thresholds`."""
    drawn = {"roc": _svg("roc", _roc, report["roc"]), "calibration": _svg("calibration", _calibration, report)}
    if report["thresholds"]:
        drawn["thresholds"] = _svg("thresholds", _thresholds, report["thresholds"])
    return drawn


def _colour(name: str) -> str:
    return _COLOURS[name][0]


def _svg(name: str, draw: Callable[[Any, Any], None], told: Any) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    look = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "text.parse_math": False,  # A class is named as it is, though its name has dollars in it.
        "text.color": _colour("ink"),
        "axes.labelcolor": _colour("ink"),
        "axes.edgecolor": _colour("faint"),
        "xtick.color": _colour("faint"),
        "ytick.color": _colour("faint"),
        "xtick.labelcolor": _colour("ink"),
        "ytick.labelcolor": _colour("ink"),
        "grid.color": _colour("line"),
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "axes.facecolor": "none",
    }
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(5.2, 4.2), layout="constrained")
        FigureCanvasSVG(figure)  # A canvas of its own: pyplot would keep global state and look for a display.
        draw(figure, told)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _themed(buffer.getvalue())


def _themed(svg: str) -> str:
    """Puts CSS variables in place of the colours, and the reader's own font in place of matplotlib's."""
    for name, (light, _) in _COLOURS.items():
        svg = svg.replace(light, f"var(--{name}, {light})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    light, dark = ("".join(f"--{name}:{pair[at]};" for name, pair in _COLOURS.items()) for at in (0, 1))
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, tag, rest = svg.partition("<defs>")
    return f"{head}{style}{tag}{rest}"


def _percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, 0, "\u202f%"))


def _roc(figure: Any, curves: list[dict[str, Any]]) -> None:
    axes = figure.add_subplot()
    for number, told in enumerate(curves):
        if not told["points"]:
            continue
        colour = _colour(_CYCLE[number % len(_CYCLE)])
        across = [point["false_positive_rate"] for point in told["points"]]
        axes.plot(across, [point["recall"] for point in told["points"]], color=colour, lw=2, label=told["name"])
        for point in told["operating"]:
            axes.plot(point["false_positive_rate"], point["recall"], "o", color=colour, ms=6)
            if point["paper"] is not None:
                axes.plot(point["paper"], point["wanted"], "D", mfc="none", mec=colour, ms=7, mew=1.5)
    _grey_legend(axes, {"o": "here", "D": "in the paper"} if any(told["paper_auc"] for told in curves) else {})
    axes.set(xlim=(-0.02, 1), ylim=(0, 1.02), xlabel="called so though it is not", ylabel="found of what there is")
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    axes.legend(loc="lower right")


def _grey_legend(axes: Any, markers: Mapping[str, str]) -> None:
    for marker, label in markers.items():
        axes.plot([], [], marker, mfc="none" if marker == "D" else _colour("faint"), mec=_colour("faint"), label=label)


def _calibration(figure: Any, report: Mapping[str, Any]) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=_colour("faint"), lw=1, ls="--")
    curves = report["calibration"]["curves"]
    looks = {"scores": ("scores as they are", "second", "--", "o"), "calibrated": ("probabilities", "first", "-", "s")}
    for name, (label, colour, line, marker) in looks.items():
        across = [found["confidence"] for found in curves[name]]
        up = [found["accuracy"] for found in curves[name]]
        upper.plot(across, up, color=_colour(colour), ls=line, marker=marker, ms=5, lw=1.8, label=label)
        steps = [found["count"] for found in curves[name]]
        middles = [(found["low"] + found["high"]) / 2 for found in curves[name]]
        lower.plot(middles, steps, color=_colour(colour), ls=line, marker=marker, ms=3, lw=1.2)
    upper.set(ylim=(0, 1.03), ylabel="named rightly")
    upper.legend(loc="upper left")
    least = 1 / len(report["classes"])
    lower.set(xlim=(min(least, 0.25) - 0.02, 1.02), xlabel="highest score of an image", ylabel="images")
    lower.set_ylim(bottom=0)
    _percent(upper.yaxis)
    _percent(lower.xaxis)


def _thresholds(figure: Any, told: Mapping[str, Any]) -> None:
    axes = figure.add_subplot()
    across = [point["looked_at"] for point in told["curve"]]
    axes.plot(across, [point["recall"] for point in told["curve"]], color=_colour("first"), lw=2)
    chosen = told["chosen"]
    share, recall = chosen["looked_at"]["share"], chosen["recall"]["share"]
    axes.plot([share, share, 0], [0, recall, recall], color=_colour("second"), lw=1, ls=":")
    axes.plot(share, recall, "o", color=_colour("second"), ms=8)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="images that a person looks at", ylabel=f"{told['name']} among them")
    _percent(axes.xaxis)
    _percent(axes.yaxis)


if TYPE_CHECKING:
    from marco_model.load import LoadedClassifier

SIDE = 320
"""Pixels of a thumbnail's longer side: sharp on a phone, about 15 kB."""
_QUALITY = 82


def thumbnail(encoded: bytes, side: int = SIDE) -> bytes:
    """Returns an encoded image as a JPEG of at most `side` pixels on the longer side."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _jpeg(small)


def overlays(
    classifier: LoadedClassifier, images: Sequence[bytes], classes: Sequence[int], samples: int, seconds: float
) -> list[bytes]:
    """Returns SmoothGrad of each image's class over what the network sees of it, as JPEGs.

    After `seconds` no other image is begun, so that there may be fewer than `images`; the first one is always made.
    """
    from PIL import Image

    from marco_model.attribution import class_gradient, overlay, smoothgrad

    gradient = class_gradient(classifier.logits)
    end = time.monotonic() + seconds
    made: list[bytes] = []
    for encoded, index in zip(images, classes, strict=True):
        if made and time.monotonic() > end:
            break
        seen = classifier.images([encoded])[0]
        drawn = Image.fromarray(overlay(seen, smoothgrad(gradient, np.asarray(seen), index, samples=samples)))
        drawn.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        made.append(_jpeg(drawn))
    return made


def _jpeg(image) -> bytes:  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
