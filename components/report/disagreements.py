"""The images that the model and their labels disagree about: the strongest, and examples of each kind of error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def disagreements(frame: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Returns the `count` images whose label has the lowest score, of those to which another class was given.

    Each has `row` (its place in `frame`), `image_id`, `filename`, `institution`, `imager`, `label`, `predicted`,
    `score` (of the predicted class) and `label_score`.
    """
    labels = frame["label"].to_numpy(np.int64)
    of_label = scores[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    chosen = wrong[np.argsort(of_label[wrong], kind="stable")][:count]
    return [_told(frame, scores, classes, int(row)) for row in chosen]


def errors(
    frame: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], target: str | None, kinds: int, examples: int
) -> list[dict[str, Any]]:
    """Returns the kinds of error with examples: what was missed of `target` first, then what was taken for it.

    The rest follow by how often they happen; at most `kinds`. Each has `label`, `predicted`, `count`, `share` (of the
    true class) and `images`, at most `examples` of those with the highest score for the wrong class, told as
    `disagreements` does.
    """
    labels = frame["label"].to_numpy(np.int64)
    predicted = scores.argmax(axis=1)
    found: list[dict[str, Any]] = []
    for true, given in sorted({(int(a), int(b)) for a, b in zip(labels, predicted, strict=True) if a != b}):
        of_kind = np.flatnonzero((labels == true) & (predicted == given))
        strongest = of_kind[np.argsort(-scores[of_kind, given], kind="stable")][:examples]
        found.append(
            {
                "label": classes[true],
                "predicted": classes[given],
                "count": len(of_kind),
                "share": len(of_kind) / int((labels == true).sum()),
                "images": [_told(frame, scores, classes, int(row)) for row in strongest],
            }
        )
    found.sort(key=lambda kind: (kind["label"] != target, kind["predicted"] != target, -kind["count"]))
    return found[:kinds]


def _told(frame: pd.DataFrame, scores: np.ndarray, classes: Sequence[str], row: int) -> dict[str, Any]:
    one = frame.iloc[row]
    label, predicted = int(one["label"]), int(scores[row].argmax())
    return {
        "row": row,
        "image_id": int(one["image_id"]),
        "filename": str(one["filename"]),
        "institution": str(one["institution"]),
        "imager": str(one["imager"]),
        "label": classes[label],
        "predicted": classes[predicted],
        "score": float(scores[row, predicted]),
        "label_score": float(scores[row, label]),
    }
