"""What fine-tuning the published classifier on one institution's drops gains there, and what it costs elsewhere.

    python -m benchmarks.finetune --institution CSIRO

Draws labelled images of one institution at full size, fine-tunes with the recipe of the preset `finetune` the head
alone, the top blocks, and everything, each from the published weights, and scores unseen images of that institution
and of the others, the same ones each time. Ours is the accuracy there of the part that did best on the labelled images
held out of training; the peer is the published classifier's. The whole table goes to stderr. Needs the extra
`released`; about 20 minutes on two busy cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marco_data.synthetic import Settings, plan
from marco_data.synthetic.plan import INSTITUTION_SHARES
from marco_data.synthetic.writer import jpegs
from marco_model.labels import CLASSES

# What is trained, with its learning rate: the fewer layers, the larger the steps that they stand.
PARTS = {"head": 0.1, "Mixed_7a": 0.004, "all": 0.004}
_BATCH = 16
# Of the labelled images, kept out of training to choose when to stop.
_HELD_OUT = 0.2


class Drops(NamedTuple):
    """Encoded images and the class index that each shows."""

    encoded: list[bytes]
    labels: np.ndarray

    def part(self, start: int, stop: int | None = None) -> Drops:
        """Returns the drops from `start` to before `stop`."""
        return Drops(self.encoded[start:stop], self.labels[start:stop])


class Outcome(NamedTuple):
    """Accuracy of one classifier: on the images held out, on unseen ones of the institution, and of the others."""

    part: str
    held_out: float
    here: float
    elsewhere: float
    best_step: int
    seconds: float


def drops(count: int, seed: int, institutions: Mapping[str, float], processes: int = 2) -> Drops:
    """Draws `count` images at full size."""
    settings = Settings(seed=seed, institutions=institutions)
    encoded = [jpeg for jpeg, _, _ in jpegs(list(range(count)), settings, processes)]
    return Drops(encoded, np.array([plan(settings, index).shown for index in range(count)]))


def shrunk(drops: Drops, transform: Mapping[str, Any]) -> Drops:
    """Returns the drops as the Transform step leaves them."""
    if not transform["shorter_side"]:
        return drops
    import tensorflow as tf

    from marco_model.preprocessing import shrink

    side, quality = transform["shorter_side"], transform["quality"]
    encoded = [shrink(tf.constant(image), side, quality).numpy() for image in drops.encoded]
    return Drops(encoded, drops.labels)


def write(path: Path, drops: Drops) -> list[str]:
    """Writes a split as training reads it and returns its files."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
        for encoded, label in zip(drops.encoded, drops.labels, strict=True):
            example = tf.train.Example()
            example.features.feature["image/encoded"].bytes_list.value.append(encoded)
            example.features.feature["image/class/label"].int64_list.value.append(int(label))
            writer.write(example.SerializeToString())
    return [str(path)]


def accuracy(model: Any, drops: Drops, size: int) -> float:
    """Returns the share of drops whose class the network names, images being prepared as for serving."""
    import tensorflow as tf

    from marco_model.classifier import logits_only
    from marco_model.preprocessing import evaluation_batch

    network = logits_only(model)
    score = tf.function(lambda encoded: network(evaluation_batch(encoded, size), training=False))
    starts = range(0, len(drops.encoded), _BATCH)
    named = [np.argmax(score(tf.constant(drops.encoded[start : start + _BATCH])), axis=1) for start in starts]
    return float((np.concatenate(named) == drops.labels).mean())


def fine_tune(part: str, files: Mapping[str, list[str]], counts: Mapping[str, int], changes: Sequence[str]) -> Any:
    """Returns the network with its best weights, and how training went; no part leaves it as published."""
    from marco_data.progress import progress
    from marco_model import training
    from marco_model.network import build
    from marco_model.weights import initialise
    from pipelines.configuration import load

    configuration = load("finetune", [f"recipe.learning_rate={PARTS[part]}", *changes])
    network = dataclasses.replace(configuration.network, trainable=part, auxiliary=None)
    model = build(network, num_classes=len(CLASSES), seed=configuration.recipe.seed)
    initialise(model, network, CLASSES)
    with tempfile.TemporaryDirectory() as folder, progress(part, configuration.recipe.steps, "steps") as advance:
        trained = training.train(
            model,
            configuration.recipe,
            input_size=network.input_size,
            train_files=files["train"],
            eval_files=files["eval"],
            train_images=counts["train"],
            eval_images=counts["eval"],
            checkpoint_directory=folder,
            on_step=advance,
        )
    return model, trained


def measure(arguments: argparse.Namespace) -> list[Outcome]:
    """Returns what the published classifier reaches, then each fine-tuned part."""
    from marco_model.weights import published_network
    from pipelines.configuration import load

    configuration = load("finetune", arguments.set)
    transform, size = configuration.transform.model_dump(), configuration.network.input_size
    others = {name: 1.0 for name in INSTITUTION_SHARES if name != arguments.institution}
    here = drops(arguments.images + arguments.unseen, arguments.seed, {arguments.institution: 1.0})
    elsewhere = shrunk(drops(arguments.unseen, arguments.seed, others), transform)
    here = shrunk(here, transform)
    held_out = round(arguments.images * _HELD_OUT)
    train, evaluation = here.part(held_out, arguments.images), here.part(0, held_out)
    unseen = here.part(arguments.images)
    counts = {"train": len(train.labels), "eval": len(evaluation.labels)}

    def judge(part: str, model: Any, best_step: int, seconds: float) -> Outcome:
        scores = [accuracy(model, drops, size) for drops in (evaluation, unseen, elsewhere)]
        outcome = Outcome(part, *scores, best_step, seconds)
        print(describe(outcome), file=sys.stderr, flush=True)
        return outcome

    outcomes = [judge("as published", published_network(), 0, 0.0)]
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": write(Path(folder) / "train", train), "eval": write(Path(folder) / "eval", evaluation)}
        for part in arguments.trainable:
            begun = time.monotonic()
            model, trained = fine_tune(part, files, counts, arguments.set)
            outcomes.append(judge(part, model, trained.best_step, time.monotonic() - begun))
    return outcomes


def describe(outcome: Outcome) -> str:
    """Returns one line to read."""
    return (
        f"{outcome.part:13s} held out {outcome.held_out:.3f}  here {outcome.here:.3f}  elsewhere "
        f"{outcome.elsewhere:.3f}  best at step {outcome.best_step}  {outcome.seconds:.0f} s"
    )


def main() -> None:
    """Runs the benchmark."""
    from benchmarks import report

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--institution", default="CSIRO", choices=list(INSTITUTION_SHARES), help="(default CSIRO)")
    parser.add_argument("--images", type=int, default=300, help="labelled images of it (default 300)")
    parser.add_argument("--unseen", type=int, default=150, help="images to judge by, of it and of others (default 150)")
    parser.add_argument("--trainable", nargs="+", default=list(PARTS), choices=PARTS, help="parts to train (all three)")
    parser.add_argument("--set", action="append", default=[], help="change a value of the preset: recipe.steps=20")
    parser.add_argument("--seed", type=int, default=3, help="of the images (default 3)")
    published, *tuned = measure(parser.parse_args())
    best = max(tuned, key=lambda outcome: outcome.held_out)
    report(best.here, published.here, "accuracy")


if __name__ == "__main__":
    main()
