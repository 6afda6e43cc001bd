"""Training from files to the best weights: resumes from its last checkpoint, stops early, reports as it goes."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable

import keras
import tensorflow as tf

from marco_model import training_input
from marco_model.errors import InputError
from marco_model.recipe import Recipe, average_decay_at, learning_rate_at
from marco_model.training_state import TrainingState

log = logging.getLogger(__name__)

REPORT_EVERY = 10
CACHE_BELOW_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Trained:
    """How training ended; `accuracy` is the best on the evaluation split, of the weights that the model now holds."""

    steps: int
    best_step: int
    accuracy: float
    resumed_from: int


def train(
    model: keras.Model,
    recipe: Recipe,
    *,
    input_size: int,
    train_files: list[str],
    eval_files: list[str],
    train_images: int,
    eval_images: int,
    checkpoint_directory: str,
    on_resume: Callable[[int], None] = lambda step: None,
    on_step: Callable[[], None] = lambda: None,
    on_metrics: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> Trained:
    """Trains `model` in place and leaves the best averaged weights in it.

    Args:
        model: from float32 [batch, input_size, input_size, 3] in [-1, 1] to logits.
        recipe: what to do.
        input_size: side of the windows in pixels.
        train_files: gzip TFRecords of `tf.train.Example` with `image/encoded` and `image/class/label`.
        eval_files: the same, for early stopping.
        train_images, eval_images: how many records the files hold (`training_input.count`).
        checkpoint_directory: where to save, and from where to resume if it holds a checkpoint.
        on_resume: told the step from which training goes on, if it was begun before.
        on_step: called after each step.
        on_metrics: told metrics by name as they come, with their step.

    Raises:
        InputError: the training split fills no batch, the evaluation split is empty, or the loss is no longer finite.
    """
    steps_per_epoch = _steps_per_epoch(train_images, eval_images, recipe)
    encoded = training_input.encoded_images(train_files)
    if sum(tf.io.gfile.stat(file).length for file in train_files) < CACHE_BELOW_BYTES:
        encoded = encoded.cache()
    evaluation = training_input.evaluation_batches(eval_files, size=input_size, batch_size=recipe.batch_size)
    state = TrainingState(model, recipe)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(state=state), checkpoint_directory, max_to_keep=2)
    manager.restore_or_initialize()
    first = step = int(state.step)
    if first:
        log.info("Resuming training from step %d of %d, checkpoint %s", first, recipe.steps, manager.latest_checkpoint)
        on_resume(first)
    stopped = False
    while step < recipe.steps and not stopped:
        epoch, within = divmod(step, steps_per_epoch)
        batches = training_input.epoch_batches(
            encoded,
            epoch=epoch,
            skip=within,
            batches=steps_per_epoch,
            size=input_size,
            batch_size=recipe.batch_size,
            shuffle=recipe.shuffle,
            seed=recipe.seed,
        )
        for images, labels in batches:
            _train_step(state, images, labels, step, steps_per_epoch, recipe, on_metrics)
            step += 1
            on_step()
            if step % recipe.evaluate_every == 0 or step == recipe.steps:
                stopped = _evaluate(state, evaluation, recipe, on_metrics)
            if step % recipe.checkpoint_every == 0 or step == recipe.steps or stopped:
                manager.save(checkpoint_number=step)
            if stopped or step == recipe.steps:
                break
    state.put_best_into_model()
    return Trained(step, int(state.best_step), float(state.best_accuracy), first)


def _steps_per_epoch(train_images: int, eval_images: int, recipe: Recipe) -> int:
    if train_images < recipe.batch_size:
        raise InputError(
            f"the training split has {train_images} images, less than recipe.batch_size {recipe.batch_size}; "
            "lower the batch size or add images"
        )
    if not eval_images:
        raise InputError("the evaluation split has no images; raise the evaluation share or add test shards")
    return train_images // recipe.batch_size


def _train_step(
    state: TrainingState,
    images: tf.Tensor,
    labels: tf.Tensor,
    step: int,
    steps_per_epoch: int,
    recipe: Recipe,
    on_metrics: Callable[[int, dict[str, float]], None],
) -> None:
    begun = time.monotonic()
    rate = learning_rate_at(recipe, step, steps_per_epoch)
    loss, accuracy = state.train_step(
        images, labels, tf.constant(rate, tf.float32), tf.constant(average_decay_at(recipe, step), tf.float32)
    )
    if (step + 1) % REPORT_EVERY and step + 1 != recipe.steps:
        return
    if not math.isfinite(float(loss)):
        raise InputError(
            f"the training loss is {float(loss)} at step {step + 1}; lower recipe.learning_rate, {rate} now"
        )
    on_metrics(
        step + 1,
        {
            "train/loss": float(loss),
            "train/accuracy": float(accuracy),
            "train/learning_rate": rate,
            "train/images_per_second": recipe.batch_size / (time.monotonic() - begun),
        },
    )


def _evaluate(
    state: TrainingState,
    evaluation: tf.data.Dataset,
    recipe: Recipe,
    on_metrics: Callable[[int, dict[str, float]], None],
) -> bool:
    """Evaluates the running average, keeps it if it is the best, and returns whether patience has run out."""
    loss, accuracy = state.evaluate(evaluation)
    step = int(state.step)
    state.keep_best(accuracy)
    on_metrics(step, {"validation/loss": loss, "validation/accuracy": accuracy})
    waited = step - int(state.best_step)
    log.info("Step %d: evaluation accuracy %.3f, best %.3f", step, accuracy, float(state.best_accuracy))
    if waited < recipe.patience * recipe.evaluate_every:
        return False
    log.info("Stopping early: no gain in %d steps", waited)
    return True
