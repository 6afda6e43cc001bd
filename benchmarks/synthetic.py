"""How real the synthetic drops are: does the published classifier see in them what was drawn, and could colour tell?

    python -m benchmarks.synthetic --images 400 --seed 0

Ours is the share of images at full size whose class the published classifier of 2018, which has never seen drawings,
names as intended. The peer is the cross-validated accuracy of logistic regression on the mean and the deviation
of red, green and blue: if that were high, colour alone would separate the classes.
Per-class agreement, the confusion matrix and the speed of drawing go to stderr. Needs the extra `released`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from marco_data.synthetic import KINDS, Settings, plan
from marco_data.synthetic.writer import jpegs
from marco_model.labels import CLASSES

_BATCH = 16


def published_scores(encoded: Sequence[bytes]) -> np.ndarray:
    """Returns the published classifier's scores, float32 [images, 4] in the order of `CLASSES`."""
    from marco_data.progress import progress
    from marco_model.load import load
    from marco_model.model_directory import published_directory

    classifier = load(published_directory())
    scores = []
    with progress("scoring", len(encoded)) as advance:
        for start in range(0, len(encoded), _BATCH):
            batch = list(encoded[start : start + _BATCH])
            scores.append(classifier.score(batch))
            advance(len(batch))
    return np.concatenate(scores)


def colour_statistics(encoded: bytes) -> np.ndarray:
    """Returns the mean and the standard deviation of each colour of an image, float64 [6]."""
    import cv2

    mean, deviation = cv2.meanStdDev(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR))
    return np.concatenate([mean[:, 0], deviation[:, 0]])


def accuracy_from_colour(statistics: np.ndarray, shown: np.ndarray) -> float:
    """Returns the accuracy of logistic regression on colour statistics [images, 6], cross-validated in five folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(cross_val_score(model, statistics, shown, cv=folds).mean())


def measure(images: int, settings: Settings, processes: int = 2) -> dict[str, Any]:
    """Draws `images` drops and returns the figures of this benchmark; see `describe` for the names."""
    plans = [plan(settings, index) for index in range(images)]
    begun = time.perf_counter()
    encoded = [jpeg for jpeg, _, _ in jpegs(list(range(images)), settings, processes)]
    seconds = time.perf_counter() - begun
    shown = np.array([what.shown for what in plans])
    named = published_scores(encoded).argmax(axis=1)
    confusion = np.zeros((len(CLASSES), len(CLASSES)), int)
    np.add.at(confusion, (shown, named), 1)
    kinds = {}
    for number, kind in enumerate(KINDS):
        chosen = np.array([what.kind == number for what in plans])
        if chosen.any():
            kinds[kind.name] = (int(chosen.sum()), float((named == shown)[chosen].mean()))
    return {
        "agreement": float((named == shown).mean()),
        "classes": {
            name: float(row[number] / max(row.sum(), 1))
            for number, (name, row) in enumerate(zip(CLASSES, confusion, strict=True))
        },
        "kinds": kinds,
        "confusion": confusion,
        "colour": accuracy_from_colour(np.array([colour_statistics(jpeg) for jpeg in encoded]), shown),
        "rate": images / seconds,
    }


def describe(figures: dict[str, Any]) -> str:
    """Returns the figures as a table to read."""
    lines = [f"{figures['rate']:.1f} images/s drawn and encoded", "shown        agreement  named " + " ".join(CLASSES)]
    for name, row in zip(CLASSES, figures["confusion"], strict=True):
        counts = " ".join(f"{count:{len(heading)}d}" for heading, count in zip(CLASSES, row, strict=True))
        lines.append(f"{name:12s} {figures['classes'][name]:9.3f}        {counts}")
    lines += [f"  {name:22s} {share:5.2f} of {count}" for name, (count, share) in figures["kinds"].items()]
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark."""
    from benchmarks import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400, help="how many to draw (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="which set (default 0)")
    parser.add_argument("--processes", type=int, default=2, help="how many processes draw (default 2)")
    arguments = parser.parse_args()
    figures = measure(arguments.images, Settings(seed=arguments.seed), arguments.processes)
    print(describe(figures), file=sys.stderr)
    report(figures["agreement"], figures["colour"], "share")


if __name__ == "__main__":
    main()
