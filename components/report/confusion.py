"""The confusion matrix in the form of Table IV of the paper, with the paper's own figures beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.report import paper


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns `columns` (class names) and `rows`, a row a true class: `name`, `count`, `cells`.

    A cell has `predicted`, `count`, `share` (of the true class; None where it has no image) and, of MARCO's four
    classes, `paper` (its share there) and `difference` (ours less the paper's); these are None otherwise. `labels`,
    `predicted`: int [n], class indices.
    """
    names = list(classes)
    counts = np.zeros([len(names)] * 2, np.int64)
    np.add.at(counts, (labels, predicted), 1)
    columns = paper.order(names)
    at = [names.index(name) for name in columns]
    rows = []
    for name in columns:
        row = counts[names.index(name), at]
        shown = paper.CONFUSION[name] if paper.applies(names) else [None] * len(columns)
        cells = [
            _cell(other, int(count), int(row.sum()), there)
            for other, count, there in zip(columns, row, shown, strict=True)
        ]
        rows.append({"name": name, "count": int(row.sum()), "cells": cells})
    return {"columns": list(columns), "rows": rows}


def _cell(predicted: str, count: int, total: int, there: float | None) -> dict[str, Any]:
    share = count / total if total else None
    difference = share - there if share is not None and there is not None else None
    return {"predicted": predicted, "count": count, "share": share, "paper": there, "difference": difference}
