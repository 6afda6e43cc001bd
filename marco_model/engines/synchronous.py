"""Steps that all replicas take together: one device, all GPUs of a machine, or several machines."""

from __future__ import annotations

from collections.abc import Generator

import tensorflow as tf

from marco_model import training_input
from marco_model.engines.work import Scalars, StepResult, Work
from marco_model.training_state import TrainingState


class Synchronous:
    """Runs a state's step under `strategy`, each replica on its part of the batch, gradients averaged.

    `share`: the part of every batch that this process reads. `leads`: whether it is the one that writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy, *, share: training_input.Share, leads: bool) -> None:
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync
        self.leads = leads
        self._share = share
        self._local = self.replicas // share.of

    def begin(self, state: TrainingState, work: Work) -> None:
        """Takes the state, made under `strategy`, and what to train it on."""
        self._work = work
        strategy = self.strategy

        @tf.function(autograph=False)
        def step(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, rate: tf.Tensor, decay: tf.Tensor) -> Scalars:
            results = strategy.run(state.step, args=(images, labels, seed, rate, decay))
            loss, accuracy = (strategy.experimental_local_results(result)[0] for result in results)
            return loss, accuracy

        @tf.function(autograph=False)
        def evaluate(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            def replica(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
                sums = state.evaluation_sums(images, labels)
                return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, sums)

            return strategy.experimental_local_results(strategy.run(replica, args=(images, labels)))[0]

        @tf.function(autograph=False)
        def any_of(flag: tf.Tensor) -> tf.Tensor:
            def replica(flag: tf.Tensor) -> tf.Tensor:
                # A copy, since what is reduced must lie on the replica's device.
                here = tf.identity(flag)
                return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, here)

            return strategy.experimental_local_results(strategy.run(replica, args=(flag,)))[0]

        self._step, self._evaluate, self._any_of = step, evaluate, any_of

    def steps(self, first: int, last: int) -> Generator[StepResult, None, None]:
        """Takes the steps `first` to `last` − 1, one for each result that is asked for."""
        work = self._work
        step = first
        while step < last:
            epoch, within = divmod(step, work.steps_per_epoch)
            for images, labels in work.epoch(epoch, within, self._share):
                loss, accuracy = self._step(
                    self._split(images),
                    self._split(labels),
                    tf.constant([work.recipe.seed, step], tf.int64),
                    *work.rates(step),
                )
                step += 1
                yield StepResult(loss, accuracy)
                if step == last:
                    break

    def _split(self, batch: tf.Tensor) -> tf.Tensor:
        """Gives each local replica its part of this process's part."""
        if self._local == 1:
            return batch
        parts = tf.split(batch, self._local)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group % self._local]
        )

    def evaluate(self) -> tuple[float, float]:
        """Returns mean cross-entropy and accuracy of the running average, the same in every process."""
        total = tf.zeros([3])
        for images, labels in self._work.evaluation(self._share):
            total += self._evaluate(self._split(images), self._split(labels))
        entropy, right, count = (float(value) for value in total)
        return entropy / count, right / count

    def anyone(self, flag: bool) -> bool:
        """Returns whether `flag` is set in any process; all must ask at the same step."""
        if self._share.of == 1:
            return flag
        return float(self._any_of(tf.constant(float(flag)))) > 0
