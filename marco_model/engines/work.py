"""What an engine is given to do, and what it tells of a step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import tensorflow as tf

from marco_model import training_input
from marco_model.recipe import Recipe, average_decay_at, learning_rate_at

Scalars = tuple[tf.Tensor, tf.Tensor]

CACHE_BELOW_BYTES = 1 << 30


class StepResult(NamedTuple):
    """Loss and accuracy of a step, float32 scalars that may still be computed; `stream` tells who took it."""

    loss: Any
    accuracy: Any
    stream: int = 0


@dataclasses.dataclass(frozen=True)
class Work:
    """The recipe and the images that it is to be run on; `input_size` in pixels."""

    recipe: Recipe
    input_size: int
    train_files: list[str]
    eval_files: list[str]
    train_images: int
    eval_images: int

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the training images."""
        return self.train_images // self.recipe.batch_size

    def rates(self, step: int) -> Scalars:
        """Learning rate and decay of the running average at a step, float32 scalars."""
        return (
            tf.constant(learning_rate_at(self.recipe, step, self.steps_per_epoch), tf.float32),
            tf.constant(average_decay_at(self.recipe, step), tf.float32),
        )

    def epoch(self, epoch: int, skip: int, share: training_input.Share) -> tf.data.Dataset:
        """One pass over the training images from batch `skip` on (`training_input.epoch_batches`)."""
        return training_input.epoch_batches(
            self._encoded,
            epoch=epoch,
            skip=skip,
            batches=self.steps_per_epoch,
            size=self.input_size,
            batch_size=self.recipe.batch_size,
            shuffle=self.recipe.shuffle,
            seed=self.recipe.seed,
            share=share,
        )

    def endless(self) -> tf.data.Dataset:
        """The training images without end in an order of no one else's (`training_input.endless_batches`)."""
        return training_input.endless_batches(
            self._encoded, size=self.input_size, batch_size=self.recipe.batch_size, shuffle=self.recipe.shuffle
        )

    def evaluation(self, share: training_input.Share) -> tf.data.Dataset:
        """One pass over the evaluation images (`training_input.evaluation_batches`)."""
        return training_input.evaluation_batches(
            self.eval_files,
            images=self.eval_images,
            size=self.input_size,
            batch_size=self.recipe.batch_size,
            share=share,
        )

    @functools.cached_property
    def _encoded(self) -> tf.data.Dataset:
        encoded = training_input.encoded_images(self.train_files)
        small = sum(tf.io.gfile.stat(file).length for file in self.train_files) < CACHE_BELOW_BYTES
        return encoded.cache() if small else encoded
