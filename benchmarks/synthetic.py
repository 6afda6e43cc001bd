"""How real the synthetic drops are: does the published classifier see in them what was drawn, and could colour tell?

    python -m benchmarks.synthetic --images 400 --seed 0

Ours is the share of images at full size whose class the published classifier of 2018, which has never seen drawings,
names as intended. The peer is the cross-validated accuracy of logistic regression on the mean and the deviation
of red, green and blue: if that were high, colour alone would separate the classes.
Agreement by class and by kind, the confusion matrix and the speed of drawing go to stderr. Needs the extra `released`.
"""

import time

import cv2
import numpy as np
import pandas as pd
from sklearn import linear_model, model_selection, pipeline, preprocessing

import benchmarks
from marco_data.progress import progress
from marco_data.synthetic import KINDS, Settings
from marco_model import labels, load


def published_scores(encoded: list[bytes]) -> np.ndarray:
    """Returns the published classifier's scores, float32 [images, 4] in the order of `CLASSES`."""
    classifier = load.open_published_classifier()
    scores = []
    with progress("scoring", len(encoded)) as advance:
        for batch in benchmarks.batches(encoded, 16):
            scores.append(classifier.score(batch))
            advance(len(batch))
    return np.concatenate(scores)


def colour_statistics(encoded: bytes) -> np.ndarray:
    """Returns the mean and the standard deviation of each colour of an image, float64 [6]."""
    pixels = np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR))
    mean, deviation = cv2.meanStdDev(pixels)
    return np.concatenate([mean[:, 0], deviation[:, 0]])


def accuracy_from_colour(statistics: np.ndarray, shown: np.ndarray) -> float:
    """Returns the accuracy of logistic regression on colour statistics [images, 6], cross-validated in five folds."""
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=5000))
    folds = model_selection.StratifiedKFold(5, shuffle=True, random_state=0)
    return float(model_selection.cross_val_score(model, statistics, shown, cv=folds).mean())


def measure(images: int, settings: Settings, processes: int = 2) -> tuple[pd.DataFrame, float]:
    """Draws `images` drops; returns `kind`, `shown`, `named` and `agreed` of each as a row, and colour's accuracy."""
    begun = time.perf_counter()
    encoded, plans = map(list, zip(*benchmarks.draw(images, settings, processes), strict=True))
    benchmarks.note(f"{images / (time.perf_counter() - begun):.1f} images/s drawn and encoded")
    drops = pd.DataFrame(
        {
            "kind": [KINDS[drop.kind].name for drop in plans],
            "shown": [labels.CLASSES[drop.shown] for drop in plans],
            "named": [labels.CLASSES[index] for index in published_scores(encoded).argmax(axis=1)],
        }
    )
    drops["agreed"] = drops["shown"] == drops["named"]
    return drops, accuracy_from_colour(np.array([colour_statistics(jpeg) for jpeg in encoded]), drops["shown"])


def describe(drops: pd.DataFrame) -> str:
    """Returns agreement by class, the confusion matrix and agreement by kind as tables to read."""
    by_class = drops.groupby("shown")["agreed"].mean().round(3).to_frame("agreement")
    by_kind = drops.groupby("kind")["agreed"].agg(agreement="mean", images="size").round(2)
    return f"{by_class.join(pd.crosstab(drops['shown'], drops['named']))}\n\n{by_kind}"


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--images", type=int, default=400, help="how many to draw (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="which set (default 0)")
    parser.add_argument("--processes", type=int, default=2, help="how many processes draw (default 2)")
    options = parser.parse_args(arguments)
    drops, from_colour = measure(options.images, Settings(seed=options.seed), options.processes)
    benchmarks.note(describe(drops))
    benchmarks.report(drops["agreed"].mean(), from_colour, "share")


if __name__ == "__main__":
    main()
