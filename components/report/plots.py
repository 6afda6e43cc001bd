"""The report's figures as SVG, thumbnails of images, and overlays that show which pixels a score depends on."""

import io
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

import marco_model
from marco_model import pixels

SIDE = 320
"""Pixels of a thumbnail's longer side: sharp on a phone, about 15 kB."""
_QUALITY = 82
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
    """Returns the SVG of each figure by its name.

    These are `roc`, `calibration`, with a class to look for `thresholds`, and of a known training `training`.
    """
    drawn = {"roc": _svg("roc", _roc, report["roc"]), "calibration": _svg("calibration", _calibration, report)}
    if report["thresholds"]:
        drawn["thresholds"] = _svg("thresholds", _thresholds, report["thresholds"])
    if report["training"]:
        drawn["training"] = _svg("training", _training, report["training"])
    return drawn


def _colour(name: str) -> str:
    return _COLOURS[name][0]


def _svg(name: str, draw: Callable[[Any, Any], None], content: Any) -> str:
    import matplotlib.backends.backend_svg
    import matplotlib.figure

    look: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "text.parse_math": False,  # A class may have dollars in its name.
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), _colour("ink")),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), _colour("faint")),
        "grid.color": _colour("line"),
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "axes.facecolor": "none",
    }
    with matplotlib.rc_context(look):
        figure = matplotlib.figure.Figure(figsize=(5.2, 4.2), layout="constrained")
        # Without pyplot, which keeps global state and looks for a display.
        matplotlib.backends.backend_svg.FigureCanvasSVG(figure)
        draw(figure, content)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _themed(buffer.getvalue())


def _themed(svg: str) -> str:
    """Replaces the colours by CSS variables, and matplotlib's font by that of the reader."""
    for name, (light, _) in _COLOURS.items():
        svg = svg.replace(light, f"var(--{name}, {light})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    light, dark = ("".join(f"--{name}:{pair[at]};" for name, pair in _COLOURS.items()) for at in (0, 1))
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, tag, rest = svg.partition("<defs>")
    return f"{head}{style}{tag}{rest}"


def _percent(axis: Any) -> None:
    axis.set_major_formatter(lambda share, _: f"{100 * share:.0f}\u202f%")


def _roc(figure: Any, curves: list[dict[str, Any]]) -> None:
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        if not curve["points"]:
            continue
        colour = _colour(_CYCLE[number % len(_CYCLE)])
        across = [point["false_positive_rate"] for point in curve["points"]]
        axes.plot(across, [point["recall"] for point in curve["points"]], color=colour, lw=2, label=curve["name"])
        for point in curve["operating"]:
            axes.plot(point["false_positive_rate"], point["recall"], "o", color=colour, ms=6)
            if point["paper"] is not None:
                axes.plot(point["paper"], point["wanted"], "D", mfc="none", mec=colour, ms=7, mew=1.5)
    if any(curve["paper_auc"] for curve in curves):
        grey = _colour("faint")
        axes.plot([], [], "o", color=grey, label="here")
        axes.plot([], [], "D", mfc="none", mec=grey, label="in the paper")
    axes.set(xlim=(-0.02, 1), ylim=(0, 1.02), xlabel="false positive rate", ylabel="recall")
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    axes.legend(loc="lower right")


def _calibration(figure: Any, report: Mapping[str, Any]) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=_colour("faint"), lw=1, ls="--")
    curves = report["calibration"]["curves"]
    looks = {"scores": ("scores", "second", "--", "o"), "calibrated": ("probabilities", "first", "-", "s")}
    for name, (label, colour, line, marker) in looks.items():
        across = [part["confidence"] for part in curves[name]]
        up = [part["accuracy"] for part in curves[name]]
        upper.plot(across, up, color=_colour(colour), ls=line, marker=marker, ms=5, lw=1.8, label=label)
        counts = [part["count"] for part in curves[name]]
        middles = [(part["low"] + part["high"]) / 2 for part in curves[name]]
        lower.plot(middles, counts, color=_colour(colour), ls=line, marker=marker, ms=3, lw=1.2)
    upper.set(ylim=(0, 1.03), ylabel="correct")
    upper.legend(loc="upper left")
    least = 1 / len(report["classes"])
    lower.set(xlim=(min(least, 0.25) - 0.02, 1.02), xlabel="highest score of an image", ylabel="images")
    lower.set_ylim(bottom=0)
    _percent(upper.yaxis)
    _percent(lower.xaxis)


def _thresholds(figure: Any, thresholds: Mapping[str, Any]) -> None:
    axes = figure.add_subplot()
    across = [point["looked_at"] for point in thresholds["curve"]]
    axes.plot(across, [point["recall"] for point in thresholds["curve"]], color=_colour("first"), lw=2)
    chosen = thresholds["chosen"]
    share, recall = chosen["looked_at"]["share"], chosen["recall"]["share"]
    axes.plot([share, share, 0], [0, recall, recall], color=_colour("second"), lw=1, ls=":")
    axes.plot(share, recall, "o", color=_colour("second"), ms=8)
    axes.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="images that a person looks at", ylabel=f"{thresholds['name']} among them"
    )
    _percent(axes.xaxis)
    _percent(axes.yaxis)


def _training(figure: Any, training: Mapping[str, Any]) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps = [point["step"] for point in training["points"]]
    for axes, name in ((upper, "accuracy"), (lower, "loss")):
        axes.plot(steps, [point[name] for point in training["points"]], "o-", color=_colour("first"), ms=4, lw=1.8)
        axes.axvline(training["best_step"], color=_colour("second"), lw=1, ls=":")
    (best,) = [point for point in training["points"] if point["step"] == training["best_step"]][:1]
    upper.plot(best["step"], best["accuracy"], "o", color=_colour("second"), ms=8, label="the model's weights")
    upper.legend(loc="lower right")
    upper.set(ylabel="accuracy")
    lower.set(ylabel="loss", xlabel="step")
    _percent(upper.yaxis)


def thumbnail(encoded: bytes, side: int = SIDE) -> bytes | None:
    """Returns an image as a JPEG of at most `side` pixels on the longer side; None if it does not decode."""
    picture = pixels.picture(encoded, side)
    return None if picture is None else _jpeg(picture)


def overlays(
    classifier: "marco_model.LoadedClassifier",
    images: Sequence[bytes],
    classes: Sequence[int],
    samples: int,
    seconds: float,
) -> list[bytes]:
    """Returns SmoothGrad of each image's class over what the network sees of it, as JPEGs.

    After `seconds` no other image is begun, so there may be fewer than `images`; the first one is always drawn.
    """
    from marco_model import attribution

    gradient = attribution.class_gradient(classifier.logits)
    end = time.monotonic() + seconds
    drawn: list[bytes] = []
    for encoded, index in zip(images, classes, strict=True):
        if drawn and time.monotonic() > end:
            break
        seen = classifier.images([encoded])[0]
        importance = attribution.smoothgrad(gradient, np.asarray(seen), index, samples=samples)
        picture = Image.fromarray(attribution.overlay(seen, importance))
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        drawn.append(_jpeg(picture))
    return drawn


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
