"""The confusion matrix as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from marco_model.labels import CLASSES


def confusion_matrix_figure(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Any:
    """Returns a matplotlib figure of `counts` [true class, predicted class]: in each cell count and share of the row.

    The colour is the row's share, in `cividis`, which reads the same with and without colour blindness.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = np.asarray(counts, dtype=np.float64)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    # An inch a class, no less than four and no more than what a page can show.
    across = min(max(len(classes), 4), 24)
    figure = Figure(figsize=(2.4 + across, 1.6 + across), layout="constrained")
    FigureCanvasAgg(figure)  # A canvas of its own: pyplot would keep global state and look for a display.
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="cividis", vmin=0.0, vmax=1.0)
    as_it_is = {"parse_math": False}  # A name may have dollars in it.
    slanted = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(classes) > len(CLASSES) else {}
    axes.set_xticks(range(len(classes)), classes, **as_it_is, **slanted)
    axes.set_yticks(range(len(classes)), classes, **as_it_is)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title)
    for row in range(len(classes)):
        for column in range(len(classes)):
            axes.text(
                column,
                row,
                f"{int(matrix[row, column]):,}\n{shares[row, column]:.1%}",
                ha="center",
                va="center",
                color="black" if shares[row, column] > 0.55 else "white",
            )
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure
