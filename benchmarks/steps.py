"""Training steps as the benchmarks `train_step`, `augmentation` and `gpu` time them: on batches that are in memory."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.report import seconds

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

    from marco_model.engine import Engine
    from marco_model.network import Network, build
    from marco_model.recipe import Recipe
    from marco_model.training_state import TrainingState

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
    from marco_model.rmsprop import RMSProp

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
            held = [tf.convert_to_tensor(variable) for variable in statistics_]
            logits, moved = model.stateless_call(values, held, images, training=True)
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
