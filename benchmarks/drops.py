"""Synthetic drops: how real they are to the published classifier, and what fine-tuning on them gains.

    python -m benchmarks.drops realism --images 400 --seed 0

`realism`: does the published classifier see in the drops what was drawn, and could colour tell? Ours is the share of
images at full size whose class the published classifier of 2018, which has never seen drawings, names as intended. The
peer is the cross-validated accuracy of logistic regression on the mean and the deviation of red, green and blue: if
that were high, colour alone would separate the classes. Agreement by class and by kind, the confusion matrix and the
speed of drawing go to stderr.

    python -m benchmarks.drops finetune --institution CSIRO

`finetune`: what fine-tuning the published classifier on one institution's drops gains there, and what it costs
elsewhere. Draws labelled images of one institution at full size, fine-tunes with the recipe of the preset `finetune`
the head alone, the top blocks, and everything, each from the published weights, and scores unseen images of that
institution and of the others, the same ones each time. Ours is the accuracy there of the part that did best on the
labelled images held out of training; the peer is the published classifier's. The whole table goes to stderr. About 20
minutes on two busy cores.

    python -m benchmarks.drops averaging --images 2000

`averaging`: what the mean over the symmetric views of an image gains (`marco predict --average`). Ours is the accuracy
of the published classifier by `--views` of each drop, the peer that by one. The interval of the difference, paired by
image, and how many times the seconds it takes, the opening of the model included, go to stderr.

All need the extra `released`.
"""

import argparse
import pathlib
import time
from typing import NamedTuple

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn import linear_model, model_selection, pipeline, preprocessing as scaling

import benchmarks
from components import settings, significance
from marco_data import progress, synthetic
from marco_model import (
    classifier,
    example_files,
    labels,
    load,
    model_directory,
    network,
    preprocessing,
    training,
    weights,
)
from pipelines import configuration

# What is trained, with its learning rate: the fewer layers, the larger the steps that they stand.
PARTS = {"head": 0.1, "Mixed_7a": 0.004, "all": 0.004}
# Of the labelled images, kept out of training to choose when to stop.
_HELD_OUT = 0.2

INSTITUTIONS = list(synthetic.Settings().institutions)

Drop = tuple[bytes, int]
"""An encoded image and the index of the class that it shows."""


def published_scores(encoded: list[bytes], average: int = 1) -> np.ndarray:
    """Returns the published classifier's scores, float32 [images, 4] in the order of `CLASSES`.

    average: the symmetric views of each image whose mean they are.
    """
    published = load.open_classifier(model_directory.published_directory(), average=average)
    scores = []
    with progress.progress("scoring", len(encoded)) as advance:
        for batch in benchmarks.batches(encoded, 16):
            scores.append(published.score(batch))
            advance(len(batch))
    return np.concatenate(scores)


def colour_statistics(encoded: bytes) -> np.ndarray:
    """Returns the mean and the standard deviation of each colour of an image, float64 [6]."""
    pixels = np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR))
    mean, deviation = cv2.meanStdDev(pixels)
    return np.concatenate([mean[:, 0], deviation[:, 0]])


def accuracy_from_colour(statistics: np.ndarray, shown: np.ndarray) -> float:
    """Returns the accuracy of logistic regression on colour statistics [images, 6], cross-validated in five folds."""
    model = pipeline.make_pipeline(scaling.StandardScaler(), linear_model.LogisticRegression(max_iter=5000))
    folds = model_selection.StratifiedKFold(5, shuffle=True, random_state=0)
    return float(model_selection.cross_val_score(model, statistics, shown, cv=folds).mean())


def measure_realism(images: int, settings: synthetic.Settings, processes: int = 2) -> tuple[pd.DataFrame, float]:
    """Draws `images` drops; returns `kind`, `shown`, `named` and `agreed` of each as a row, and colour's accuracy."""
    begun = time.perf_counter()
    encoded, plans = map(list, zip(*benchmarks.draw(images, settings, processes), strict=True))
    benchmarks.note(f"{images / (time.perf_counter() - begun):.1f} images/s drawn and encoded")
    drops = pd.DataFrame(
        {
            "kind": [synthetic.KINDS[drop.kind].name for drop in plans],
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


def realism(arguments: list[str]) -> None:
    """Measures and reports, in shares of the images."""
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--images", type=int, default=400, help="how many to draw (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="which set (default 0)")
    parser.add_argument("--processes", type=int, default=2, help="how many processes draw (default 2)")
    options = parser.parse_args(arguments)
    drops, from_colour = measure_realism(options.images, synthetic.Settings(seed=options.seed), options.processes)
    benchmarks.note(describe(drops))
    benchmarks.report(drops["agreed"].mean(), from_colour, "share")


def difference(pairs: significance.Pairs) -> str:
    """Returns the difference of two shares of right pictures in points, with its interval."""
    low, high, _ = significance.paired_interval(pairs, 0.95)
    return f"{100 * pairs.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def averaging(arguments: list[str]) -> None:
    """Measures and reports, in accuracy."""
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--images", type=int, default=2000, help="how many to draw (default 2000)")
    parser.add_argument("--views", type=int, default=8, choices=[2, 4, 8], help="of each image (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="which set (default 0)")
    options = parser.parse_args(arguments)
    drawn = benchmarks.draw(options.images, synthetic.Settings(seed=options.seed))
    encoded, shown = [jpeg for jpeg, _ in drawn], np.array([drop.shown for _, drop in drawn])
    right, seconds = [], []
    for average in (options.views, 1):
        begun = time.perf_counter()
        right.append(published_scores(encoded, average).argmax(axis=1) == shown)
        seconds.append(time.perf_counter() - begun)
    pairs = significance.pairs(*right)
    ratio = seconds[0] / seconds[1]
    benchmarks.note(f"{pairs.gained} gained, {pairs.lost} lost: {difference(pairs)}; {ratio:.2f} times the seconds")
    benchmarks.report(right[0].mean(), right[1].mean(), "accuracy")


class Outcome(NamedTuple):
    """Accuracy of one classifier: on the images held out, on unseen ones of the institution, and of the others."""

    part: str
    held_out: float
    unseen: float
    elsewhere: float
    best_step: int
    seconds: float


def draw(count: int, seed: int, institutions: dict[str, float], transform: settings.Transform) -> list[Drop]:
    """Draws `count` images at full size and returns them as the Transform step leaves them."""
    drawn = benchmarks.draw(count, synthetic.Settings(seed=seed, institutions=institutions))
    side, quality = transform.shorter_side, transform.quality
    return [(preprocessing.shrink(jpeg, side, quality).numpy() if side else jpeg, drop.shown) for jpeg, drop in drawn]


def write(folder: pathlib.Path, drops: list[Drop]) -> list[str]:
    """Writes a split as training reads it and returns its files."""
    examples = (benchmarks.example(jpeg, number, label) for number, (jpeg, label) in enumerate(drops))
    return benchmarks.write_records(folder, examples, shards=1)


def classify(model: keras.Model, encoded: list[bytes], size: int) -> np.ndarray:
    """Returns the class that the network names for each image, prepared as for serving: int64 [images]."""
    logits = classifier.logits_only(model)
    score = tf.function(lambda images: logits(preprocessing.evaluation_batch(images, size), training=False))
    batches = benchmarks.batches(encoded, 16)
    return np.concatenate([np.argmax(score(tf.constant(batch)), axis=1) for batch in batches])


def fine_tune(part: str, train: list[Drop], held_out: list[Drop], changes: list[str]) -> tuple[keras.Model, int]:
    """Returns the published network after training `part` of it, with its best weights, and the step of these."""
    ours = [f"network.trainable={part}", "network.auxiliary=null"]
    loaded = configuration.load("finetune", [f"recipe.learning_rate={PARTS[part]}", *changes, *ours])
    shape = loaded.network
    model = network.build(shape, num_classes=len(labels.CLASSES), seed=loaded.recipe.seed)
    weights.initialise(model, shape, labels.CLASSES)
    with benchmarks.scratch() as folder, progress.progress(part, loaded.recipe.steps, "steps") as advance:
        trained = training.train(
            model,
            loaded.recipe,
            input_size=shape.input_size,
            train_records=example_files.read_index(write(folder / "train", train)),
            validation_records=example_files.read_index(write(folder / "eval", held_out)),
            checkpoint_directory=str(folder / "checkpoints"),
            on_step=advance,
        )
    return model, trained.best_step


def measure_fine_tuning(options: argparse.Namespace) -> list[Outcome]:
    """Returns what the published classifier reaches, then each fine-tuned part."""
    loaded = configuration.load("finetune", options.set)
    shares = {name: 1.0 for name in INSTITUTIONS if name != options.institution}
    own = draw(options.images + options.unseen, options.seed, {options.institution: 1.0}, loaded.transform)
    elsewhere = draw(options.unseen, options.seed, shares, loaded.transform)
    boundary = round(options.images * _HELD_OUT)
    held_out, train, unseen = own[:boundary], own[boundary : options.images], own[options.images :]

    def accuracy(model: keras.Model, judged: list[Drop]) -> float:
        named = classify(model, [jpeg for jpeg, _ in judged], loaded.network.input_size)
        return float((named == [shown for _, shown in judged]).mean())

    def judge(part: str, model: keras.Model, best_step: int = 0, seconds: float = 0.0) -> Outcome:
        validation, new, other = accuracy(model, held_out), accuracy(model, unseen), accuracy(model, elsewhere)
        figures = f"held out {validation:.3f}  unseen {new:.3f}  elsewhere {other:.3f}"
        benchmarks.note(f"{part:13s} {figures}  best at step {best_step}  {seconds:.0f} s")
        return Outcome(part, validation, new, other, best_step, seconds)

    outcomes = [judge("as published", weights.published_network())]
    for part in options.trainable:
        begun = time.monotonic()
        model, best_step = fine_tune(part, train, held_out, options.set)
        outcomes.append(judge(part, model, best_step, time.monotonic() - begun))
    return outcomes


def finetune(arguments: list[str]) -> None:
    """Measures and reports, in accuracy."""
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--institution", default="CSIRO", choices=INSTITUTIONS, help="(default CSIRO)")
    parser.add_argument("--images", type=int, default=300, help="labelled images of it (default 300)")
    parser.add_argument("--unseen", type=int, default=150, help="images to judge by, of it and of others (default 150)")
    parser.add_argument("--trainable", nargs="+", default=list(PARTS), choices=PARTS, help="parts to train (all three)")
    parser.add_argument("--set", action="append", default=[], help="change a value of the preset: recipe.steps=20")
    parser.add_argument("--seed", type=int, default=3, help="of the images (default 3)")
    published, *tuned = measure_fine_tuning(parser.parse_args(arguments))
    best = max(tuned, key=lambda outcome: outcome.held_out)
    benchmarks.report(best.unseen, published.unseen, "accuracy")


if __name__ == "__main__":
    benchmarks.choose(realism=realism, finetune=finetune, averaging=averaging)
