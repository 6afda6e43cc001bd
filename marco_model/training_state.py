"""What a training run is made of: weights, optimizer slots, running average, best-so-far and step; and its one step.

The Keras model is used as a pure function (`stateless_call`); the variables are ours, so that the same state can be
made under any `tf.distribute` strategy (DESIGN.md, decision 3).
"""

from __future__ import annotations

import keras
import tensorflow as tf

from marco_model import augmentation, preprocessing
from marco_model.loss import heads, training_loss
from marco_model.recipe import Recipe
from marco_model.rmsprop import RMSProp


def _variables(values: list) -> list[tf.Variable]:
    return [tf.Variable(value, trainable=False) for value in values]


class TrainingState(tf.Module):
    """The state of a training run of `model`, a Keras model from float32 images in [-1, 1] to logits.

    Averages run over all the model's variables, moving statistics included, as TF-Slim's do.
    """

    def __init__(self, model: keras.Model, recipe: Recipe) -> None:
        super().__init__()
        self._model = model
        self._recipe = recipe
        self.trained = [tf.Variable(variable.value) for variable in model.trainable_variables]
        self.statistics = _variables([variable.value for variable in model.non_trainable_variables])
        self.optimizer = RMSProp(self.trained, rho=recipe.rho, momentum=recipe.momentum, epsilon=recipe.epsilon)
        self.averages = _variables(self.trained + self.statistics)
        self.best = _variables(self.trained + self.statistics)
        self.best_accuracy = tf.Variable(-1.0, trainable=False)
        self.best_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._kernels = [index for index, v in enumerate(model.trainable_variables) if v.path.endswith("/kernel")]

    @tf.function
    def train_step(
        self, images: tf.Tensor, labels: tf.Tensor, learning_rate: tf.Tensor, average_decay: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes one step; returns its loss and its accuracy on the distorted images, both float32 scalars.

        Args:
            images: uint8 [batch, size, size, 3].
            labels: int64 [batch].
            learning_rate: float32 scalar.
            average_decay: float32 scalar in [0, 1).
        """
        inputs = self._distort(images)
        with tf.GradientTape() as tape:
            outputs, statistics = self._model.stateless_call(
                [tf.convert_to_tensor(variable) for variable in self.trained],
                [tf.convert_to_tensor(variable) for variable in self.statistics],
                inputs,
                training=True,
            )
            kernels = [tf.convert_to_tensor(self.trained[index]) for index in self._kernels]
            loss = training_loss(outputs, labels, kernels, self._recipe)
        self.optimizer.apply(tape.gradient(loss, self.trained), learning_rate)
        for variable, value in zip(self.statistics, statistics, strict=True):
            variable.assign(value)
        for average, variable in zip(self.averages, self.trained + self.statistics, strict=True):
            average.assign_sub((1.0 - average_decay) * (average - variable))
        self.step.assign_add(1)
        return loss, _accuracy(heads(outputs)["logits"], labels)

    def _distort(self, images: tf.Tensor) -> tf.Tensor:
        if not self._recipe.augment:
            return preprocessing.to_network_range(images)
        seed = tf.stack([tf.constant(self._recipe.seed, tf.int64), self.step.read_value()])
        return augmentation.distort(images, augmentation.draw(seed, tf.shape(images)[0]))

    def evaluate(self, batches: tf.data.Dataset) -> tuple[float, float]:
        """Returns mean cross-entropy and accuracy of the running average over (float32 images, int64 labels)."""
        total = loss = right = 0.0
        for images, labels in batches:
            logits = self._averaged_logits(images)
            entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            count = float(len(labels))
            total += count
            loss += float(tf.reduce_sum(entropies))
            right += count * float(_accuracy(logits, labels))
        return loss / total, right / total

    @tf.function
    def _averaged_logits(self, images: tf.Tensor) -> tf.Tensor:
        values = [tf.convert_to_tensor(variable) for variable in self.averages]
        outputs, _ = self._model.stateless_call(values[: len(self.trained)], values[len(self.trained) :], images)
        return heads(outputs)["logits"]

    def keep_best(self, accuracy: float) -> bool:
        """Keeps the running average as the best so far if `accuracy` beats it; returns whether it did."""
        if accuracy <= float(self.best_accuracy):
            return False
        for best, average in zip(self.best, self.averages, strict=True):
            best.assign(average)
        self.best_accuracy.assign(accuracy)
        self.best_step.assign(self.step)
        return True

    def put_best_into_model(self) -> None:
        """Gives the model the best weights, for export."""
        for variable, value in zip(
            self._model.trainable_variables + self._model.non_trainable_variables, self.best, strict=True
        ):
            variable.assign(value)


def _accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, axis=-1), labels), tf.float32))
