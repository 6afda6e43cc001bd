"""Accuracy and recall by institution, by imager and by both, with counts and intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from components.evaluator.names import CROSS_NAME, SLICES, TIMES
from components.report.intervals import share

if TYPE_CHECKING:
    import pandas as pd


def slices(frame: pd.DataFrame, right: np.ndarray, target: np.ndarray | None) -> list[dict[str, Any]]:
    """Returns a table for each of institution, imager and both: `kind` and `rows`, sorted by name.

    A row has `name`, `accuracy` and `target` (recall of the class that must not be missed, None without one), each a
    `components.report.intervals.share`. `frame`: the Evaluator's table; `right`: bool [n], whether the label was
    predicted; `target`: bool [n], whether the label is that class.
    """
    values = {kind: frame[kind].astype(str).to_numpy(object) for kind in SLICES}
    crossed = [TIMES.join(pair) for pair in zip(*(values[kind] for kind in SLICES), strict=True)]
    values[CROSS_NAME] = np.array(crossed, object)
    return [
        {"kind": kind, "rows": [_row(name, of_kind == name, right, target) for name in sorted(set(of_kind))]}
        for kind, of_kind in values.items()
    ]


def _row(name: str, chosen: np.ndarray, right: np.ndarray, target: np.ndarray | None) -> dict[str, Any]:
    told = {"name": name, "accuracy": share(int(right[chosen].sum()), int(chosen.sum())), "target": None}
    if target is not None:
        both = chosen & target
        told["target"] = share(int(right[both].sum()), int(both.sum()))
    return told
