"""A recipe stated for one batch size carried to another: the accuracy that both reach after the same images.

Trains a small network (convolutions in branches, batch norm and ReLU, as in the paper's) on small synthetic drops, from
the same weights, with the distortions, loss, RMSProp and running average of training: by a recipe stated for batches of
64, and by what `recipe.stated_for_batch` makes of it for batches of 256. Epsilon, momentum and learning rate are those
of the preset `gpu`; warm-up and decay fit a run of some thousand steps. Each running average is judged once, at the
end, on drops that served nothing before. Ours is the mean accuracy over the seeds at the larger batch, the peer that at
the stated one. With `--alternatives` the larger batch also trains with other rates: times the root of the ratio of the
batches, and as stated. An hour of one core, twice that with alternatives.

    python -m benchmarks.batch_size
"""

import argparse
import dataclasses
import math
import statistics
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import benchmarks
from marco_data import synthetic
from marco_model import example_files, labels, layers, preprocessing, training
from marco_model.recipe import Recipe

DRAWN_SIDE, SHORTER_SIDE, SIZE = 84, 48, 43
"""Pixels of the drops as drawn and as they are written, and of the windows: nine tenths, as in the preset `local`."""
QUALITY = 95
MOMENTUM = 0.95
"""Of batch norm, at the stated batch."""
LAST_RATE = 0.05
"""What remains of the learning rate at the end."""
STATED, LARGER = "as stated", "by the rule"


def stated_recipe(options: argparse.Namespace) -> Recipe:
    """Returns the recipe as stated, of the preset `gpu` but for lengths, which fit a run of some thousand steps."""
    epochs = options.steps * options.stated_for / options.train
    return Recipe(
        steps=options.steps,
        batch_size=options.stated_for,
        learning_rate=options.learning_rate,
        epsilon=options.epsilon,
        # 0.94 as often as it takes to the last rate.
        epochs_per_decay=epochs * math.log(0.94) / math.log(LAST_RATE),
        warm_up_steps=options.steps // 10,
        average_decay=0.99,
        evaluate_every=options.steps,
        checkpoint_every=options.steps,
    )


def recipes(options: argparse.Namespace) -> dict[str, Recipe]:
    """Returns the recipes to train by, each under its name, the stated one first."""
    stated = stated_recipe(options)
    carried = dataclasses.replace(stated, batch_size=options.batch_size, stated_for_batch=options.stated_for)
    arms = {STATED: stated, LARGER: carried}
    by_rule = carried.effective().learning_rate / stated.learning_rate
    rates = {"linear": carried.batch_ratio, "square root": math.sqrt(carried.batch_ratio), "as stated": 1.0}
    for name, factor in rates.items() if options.alternatives else ():
        if not math.isclose(factor, by_rule):
            rate = stated.learning_rate * factor / by_rule
            arms[f"rate {name}"] = dataclasses.replace(carried, learning_rate=rate)
    return arms


def small_network(seed: int, momentum: float) -> keras.Model:
    """Returns an untrained network of 0.2 M weights: a stem, and three blocks of two branches."""
    keras.utils.set_random_seed(seed)

    def conv(x: Any, depth: int, kernel: int = 3, strides: int = 1) -> Any:
        initializer = keras.initializers.TruncatedNormal(stddev=0.1)
        options = {"strides": strides, "padding": "same", "use_bias": False, "kernel_initializer": initializer}
        x = keras.layers.Conv2D(depth, kernel, **options)(x)
        return keras.layers.ReLU()(layers.BatchNormalization(scale=False, epsilon=0.001, momentum=momentum)(x))

    images = keras.Input((SIZE, SIZE, 3))
    x = conv(conv(images, 16, strides=2), 32, strides=2)
    for depth in (32, 64, 96):
        x = keras.layers.Concatenate()([conv(x, depth // 2), conv(conv(x, depth // 2, kernel=1), depth // 2)])
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(conv(x, 128))
    return keras.Model(images, keras.layers.Dense(len(labels.CLASSES))(x))


def shrink(jpeg: bytes) -> bytes:
    """Returns a drop as small as it is written."""
    return bytes(preprocessing.shrink(tf.constant(jpeg), SHORTER_SIDE, QUALITY).numpy())


def write_drops(folder: Path, counts: list[int]) -> list[example_files.RecordIndex]:
    """Draws drops, as many for each split as `counts` says, and returns where the records of each are."""
    drawn = benchmarks.draw(sum(counts), synthetic.Settings(shorter_side=DRAWN_SIDE))
    splits, first = [], 0
    for count in counts:
        part = enumerate(drawn[first : first + count])
        examples = (benchmarks.example(shrink(jpeg), number, drop.shown) for number, (jpeg, drop) in part)
        splits.append(example_files.read_index(benchmarks.write_records(folder / str(first), examples, shards=1)))
        first += count
    return splits


def accuracy(recipe: Recipe, splits: list[example_files.RecordIndex]) -> float:
    """Returns the accuracy of the running average at the end of a training, on the second split."""
    train_records, eval_records = splits
    model = small_network(recipe.seed, recipe.kept_per_step(MOMENTUM))
    with benchmarks.scratch() as folder:
        return training.train(
            model,
            recipe,
            input_size=SIZE,
            train_records=train_records,
            validation_records=eval_records,
            checkpoint_directory=str(folder),
        ).accuracy


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports; the figures of every seed are in the report too."""
    parser = benchmarks.parser(__doc__)
    parser.add_argument("--stated-for", type=int, default=64, help="batch size that the recipe is stated for (64)")
    parser.add_argument("--batch-size", type=int, default=256, help="that it is carried to (256)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights and order (0 1 2)")
    parser.add_argument("--steps", type=int, default=6400, help="at the stated batch (6400)")
    parser.add_argument("--learning-rate", type=float, default=0.045, help="at the stated batch (0.045)")
    parser.add_argument("--epsilon", type=float, default=0.1, help="of RMSProp (0.1)")
    parser.add_argument("--train", type=int, default=6144, help="drops to train on (6144)")
    parser.add_argument("--eval", type=int, default=3000, help="drops to judge on (3000)")
    parser.add_argument("--alternatives", action="store_true", help="train with other rates as well")
    options = parser.parse_args(arguments)
    by_name: dict[str, list[float]] = {name: [] for name in recipes(options)}
    with benchmarks.scratch() as folder:
        splits = write_drops(folder, [options.train, options.eval])
        for seed in options.seeds:
            for name, recipe in recipes(options).items():
                begun = time.monotonic()
                by_name[name].append(accuracy(dataclasses.replace(recipe, seed=seed), splits))
                took = f"{recipe.effective().steps} steps of {recipe.batch_size}, {time.monotonic() - begun:.0f} s"
                benchmarks.note(f"seed {seed}  {name:17s} {by_name[name][-1]:.4f}  {took}")
    for name, values in by_name.items():
        spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        benchmarks.note(f"{name:17s} {statistics.mean(values):.4f}{spread}")
    ours, peer = (statistics.mean(by_name[name]) for name in (LARGER, STATED))
    benchmarks.report(ours, peer, "accuracy", by_seed=by_name)


if __name__ == "__main__":
    main()
