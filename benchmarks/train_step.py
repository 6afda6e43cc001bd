"""One training step of the paper's network at 599 pixels against Keras's Inception-v3 at 299, seconds.

Ours is the whole step as training takes it, from uint8 windows: distortions, forward and backward pass with the
auxiliary head, smoothed loss and L2, RMSProp, moving statistics and the running average. The peer has float images
ready and does forward and backward pass, plain cross-entropy and the same optimizer. Same batch, same cores, in turns.

    python -m benchmarks.train_step
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import report, seconds

CLASSES = 4
Step = Callable[[], object]


def batch_of(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns noise, uint8 [count, size, size, 3], and int64 [count] labels."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, size, size, 3), dtype=np.uint8), np.arange(count, dtype=np.int64) % CLASSES


def paper_step(
    *,
    augment: bool = True,
    precision: str = "float32",
    xla: bool = False,
    input_size: int = 599,
    depth_multiplier: float = 1.0,
) -> Callable[[Any, Any], Any]:
    """Returns our whole training step of the `paper` network on (uint8 windows, labels), as one device runs it.

    Distortions, forward and backward pass with the auxiliary head, label smoothing and L2, RMSProp, moving statistics
    and the running average of all weights. It returns the loss.
    """
    import tensorflow as tf

    from marco_model.network import Network, build
    from marco_model.recipe import Engine, Recipe
    from marco_model.training_step import TrainingState

    policy = Engine(precision=precision).dtype_policy  # type: ignore[arg-type]
    model = build(
        Network(input_size=input_size, depth_multiplier=depth_multiplier),
        num_classes=CLASSES,
        seed=0,
        dtype_policy=policy,
    )
    recipe = Recipe(augment=augment)
    state = TrainingState(model, recipe, xla=xla)
    strategy = tf.distribute.get_strategy()
    rate, decay = tf.constant(recipe.learning_rate), tf.constant(recipe.average_decay)
    number = tf.Variable(0, dtype=tf.int64, trainable=False)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([tf.constant(0, tf.int64), number.assign_add(1)])
        return strategy.run(state.step, args=(images, labels, seed, rate, decay))[0]

    return step


def stock_step(input_size: int = 299) -> Callable[[Any, Any], Any]:
    """Returns a plain training step of `keras.applications.InceptionV3` on (float32 images, labels).

    Forward and backward pass, cross-entropy, our RMSProp and the moving statistics; no auxiliary head, no L2, no
    distortions, no running average. It returns the loss.
    """
    import keras
    import tensorflow as tf

    from marco_model.recipe import Recipe
    from marco_model.training_step import RMSProp

    model = keras.applications.InceptionV3(
        weights=None, input_shape=(input_size, input_size, 3), classes=CLASSES, classifier_activation=None
    )
    recipe = Recipe()
    trained = [tf.Variable(variable.value) for variable in model.trainable_variables]
    statistics_ = [tf.Variable(variable.value, trainable=False) for variable in model.non_trainable_variables]
    optimizer = RMSProp(trained, rho=recipe.rho, momentum=recipe.momentum, epsilon=recipe.epsilon)
    rate = tf.constant(recipe.learning_rate)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        values = [tf.convert_to_tensor(variable) for variable in trained]
        with tf.GradientTape() as tape:
            tape.watch(values)
            statistics_now = [tf.convert_to_tensor(variable) for variable in statistics_]
            logits, moved = model.stateless_call(values, statistics_now, images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tf.distribute.get_strategy(), tape.gradient(loss, values), rate)
        for variable, value in zip(statistics_, moved, strict=True):
            variable.assign(value)
        return loss

    return step


def in_turns(sides: dict[str, Step], rounds: int) -> dict[str, float]:
    """Returns each side's seconds a step: warmed up twice, then measured in turns, the median of the rounds."""
    for step in sides.values():
        for _ in range(2):
            step()
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, step in sides.items():
            taken[name].append(seconds(step))
        latest = ", ".join(f"{name} {values[-1]:.3f} s" for name, values in taken.items())
        print(f"round {number + 1}: {latest}", file=sys.stderr, flush=True)
    return {name: statistics.median(values) for name, values in taken.items()}


def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch-size", type=int, default=16, help="images a step, on both sides")
    options.add_argument("--rounds", type=int, default=11, help="steps of each side")
    options.add_argument("--sizes", type=int, nargs=2, default=(599, 299), help="pixels of ours and the peer's input")
    chosen = options.parse_args(arguments)

    import tensorflow as tf

    our_size, peer_size = chosen.sizes
    windows, labels = (tf.constant(part) for part in batch_of(our_size, chosen.batch_size))
    images = tf.constant(batch_of(peer_size, chosen.batch_size)[0], tf.float32) / 127.5 - 1.0
    ours = paper_step(input_size=our_size)
    peer = stock_step(peer_size)
    taken = in_turns(
        {"ours": lambda: float(ours(windows, labels)), "peer": lambda: float(peer(images, labels))}, chosen.rounds
    )
    report(taken["ours"], taken["peer"], f"seconds for a step of {chosen.batch_size} images")


if __name__ == "__main__":
    main()
