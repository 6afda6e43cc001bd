"""Small figures for the report, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WIDTH, _HEIGHT = 300, 84
_BINS = 32


def histogram(before: np.ndarray, after: np.ndarray) -> str:
    """Returns the outlines of two distributions, float [n] and [m], over one axis; 1 % at either end is cut off."""
    both = np.concatenate([before, after])
    low, high = np.quantile(both, [0.01, 0.99])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    counts = [np.histogram(np.clip(values, low, high), edges)[0] / len(values) for values in (before, after)]
    top = max(count.max() for count in counts)
    paths = "".join(
        f'<path class="{name}" d="{_outline(count / top)}"/>'
        for name, count in zip(("before", "after"), counts, strict=True)
    )
    labels = (
        f'<text x="0" y="{_HEIGHT - 2}">{low:.4g}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 2}" text-anchor="end">{high:.4g}</text>'
    )
    return _svg(paths + labels, _HEIGHT, "distributions before and now")


def _outline(heights: np.ndarray) -> str:
    base, room = _HEIGHT - 16, _HEIGHT - 20
    step = _WIDTH / len(heights)
    points = [f"M0 {base}"]
    for index, height in enumerate(heights):
        y = base - room * height
        points.append(f"L{index * step:.1f} {y:.1f}L{(index + 1) * step:.1f} {y:.1f}")
    return "".join([*points, f"L{_WIDTH} {base}"])


def shares(names: Sequence[str], before: Sequence[float], after: Sequence[float]) -> str:
    """Returns two bars a class, as long as its share."""
    rows = []
    room = _WIDTH - 150
    for index, (name, old, new) in enumerate(zip(names, before, after, strict=True)):
        y = index * 26
        rows.append(f'<text x="0" y="{y + 16}">{_escaped(name)}</text>')
        for offset, share, kind in ((3, old, "before"), (12, new, "after")):
            rows.append(f'<rect class="{kind}" x="90" y="{y + offset}" width="{room * share:.1f}" height="8"/>')
        rows.append(f'<text x="{_WIDTH}" y="{y + 16}" text-anchor="end">{old:.0%} → {new:.0%}</text>')
    return _svg("".join(rows), 26 * len(names), "shares of the predicted classes before and now")


def _svg(content: str, height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{content}</svg>'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
