"""Engines: where and how the steps of a training are executed (docs/training.md).

`start` makes the engine that a configuration describes: `Synchronous` on one device, on all GPUs of this machine, or on
several machines whose replicas average their gradients; `ParameterServers` for asynchronous workers, as in the paper.
Both take a `TrainingState` and a `Work`, then hand out the results of steps as `training.train` asks for them. Workers
and parameter servers of an asynchronous cluster take no part in `train`: they `serve`.
"""

import collections
import contextlib
import dataclasses
import functools
import logging
import socket
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from marco_model import errors, layers, recipe as recipes, training_input, training_step
from marco_model.example_files import RecordIndex

log = logging.getLogger(__name__)

Scalars = tuple[tf.Tensor, ...]

QUEUED = 4
"""Steps handed out ahead for each asynchronous worker, so that none waits for the chief."""

LOST_AFTER = 60.0
"""Seconds without a chief after which a worker or parameter server that had one ends."""


class StepResult(NamedTuple):
    """Loss and accuracy of a step, float32 scalars that may still be computed; `stream` identifies who took it."""

    loss: Any
    accuracy: Any
    stream: int = 0


@dataclasses.dataclass(frozen=True)
class Work:
    """A recipe and the records to train on and to evaluate; `input_size` in pixels."""

    recipe: recipes.Recipe
    input_size: int
    train: RecordIndex
    evaluation: RecordIndex

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the training images."""
        return len(self.train) // self.recipe.batch_size

    def rates(self, step: int) -> Scalars:
        """Learning rate and decay of the running average at a step, float32 scalars, for `TrainingState.step`.

        Then the strength of the gradient's reversal, if training is adversarial.
        """
        rate = recipes.learning_rate_at(self.recipe, step, self.steps_per_epoch)
        rates = [rate, recipes.average_decay_at(self.recipe, step)]
        if self.recipe.adversarial_weight:
            rates.append(recipes.reversal_at(self.recipe, step))
        return tuple(tf.constant(rate, tf.float32) for rate in rates)

    def evaluation_batches(self, share: training_input.Share) -> tf.data.Dataset:
        """One pass over the evaluation images (`training_input.evaluation_batches`)."""
        size, batch_size = self.input_size, self.recipe.batch_size
        return training_input.evaluation_batches(self.evaluation, size=size, batch_size=batch_size, share=share)


def _mean_of(sums: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], batches: tf.data.Dataset) -> tuple[float, float, int]:
    """Returns mean cross-entropy, accuracy and images with a label from `TrainingState.evaluation_sums` of all batches.

    Raises `InputError` if the label of every image is hidden.
    """
    total = tf.zeros([3])
    for images, labels in batches:
        total += sums(images, labels)
    entropy, correct, count = (float(value) for value in total)
    if not count:
        raise errors.InputError(
            "recipe.unlabelled hides all labels of the validation split; raise data.validation_share, or hide fewer"
        )
    return entropy / count, correct / count, int(count)


def ahead_on_gpu(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the batches, with the next two on the first GPU before they are needed; as they are without a GPU."""
    gpus = tf.config.list_logical_devices("GPU")
    return batches.apply(tf.data.experimental.prefetch_to_device(gpus[0].name, buffer_size=2)) if gpus else batches


class Synchronous:
    """Runs a state's step under `strategy`, each replica on its part of the batch, with averaged gradients.

    `share`: the part of every batch that this process reads. `leads`: whether this process writes checkpoints.
    """

    def __init__(self, strategy: tf.distribute.Strategy, *, share: training_input.Share, leads: bool) -> None:
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync
        self.leads = leads
        self._share = share
        self._local = self.replicas // share.count

    def begin(self, state: training_step.TrainingState, work: Work) -> None:
        """Takes the state, made under `strategy`, and the work."""
        self._work = work
        # The step that the open input comes to next: it stays open from stretch to stretch.
        self._next = -1
        strategy = self.strategy

        def on_replicas(function: Callable[..., Any]) -> Callable[..., Any]:
            """Returns the function that runs `function` on every replica and returns the first one's results."""

            @tf.function(autograph=False)
            def run(*arguments: tf.Tensor) -> Any:
                results = strategy.run(function, args=arguments)
                return tf.nest.map_structure(lambda result: strategy.experimental_local_results(result)[0], results)

            return run

        def summed(value: tf.Tensor) -> tf.Tensor:
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

        self._step = on_replicas(state.step)
        self._evaluation_sums = on_replicas(
            lambda images, labels: summed(state.evaluation_sums(state.average_values(), images, labels))
        )
        # A copy, since what is reduced must lie on the replica's device.
        self._sums = on_replicas(lambda numbers: summed(tf.identity(numbers)))

    def steps(self, first: int, last: int) -> Generator[StepResult, None, None]:
        """Takes the steps `first` to `last` − 1, one for each result that is asked for."""
        work = self._work
        if first != self._next:
            batches = training_input.training_batches(
                work.train, work.recipe, work.input_size, first=first, share=self._share
            )
            # Of several GPUs each takes its part of a batch, which the host splits.
            self._batches, self._next = iter(ahead_on_gpu(batches) if self._local == 1 else batches), first
        for step in range(first, last):
            images, labels = next(self._batches)
            result = self.step(images, labels, step)
            self._next = step + 1
            yield result

    def step(self, images: tf.Tensor, labels: tf.Tensor, number: int) -> StepResult:
        """Takes step `number` on this process's part of the batch."""
        seed = tf.constant([self._work.recipe.seed, number], tf.int64)
        return StepResult(*self._step(self._split(images), self._split(labels), seed, *self._work.rates(number)))

    def _split(self, batch: tf.Tensor) -> tf.Tensor:
        """Gives each local replica its part of this process's part."""
        if self._local == 1:
            return batch
        parts = tf.split(batch, self._local)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group % self._local]
        )

    def evaluate(self) -> tuple[float, float, int]:
        """Returns the running average's mean cross-entropy and accuracy, and how many evaluation images have a label.

        The same in every process. Raises `InputError` if none has a label.
        """
        return _mean_of(
            lambda images, labels: self._evaluation_sums(self._split(images), self._split(labels)),
            self._work.evaluation_batches(self._share),
        )

    def of_everyone(self, number: int) -> list[int]:
        """Returns the `number` of each process; all must ask at the same step."""
        if self._share.count == 1:
            return [number]
        own = tf.one_hot(self._share.index, self._share.count, on_value=tf.constant(number, tf.int64), dtype=tf.int64)
        return [int(total) // self._local for total in self._sums(own)]


class ParameterServers:
    """Hands a state's steps to workers while the variables lie on the parameter servers; runs on the chief."""

    def __init__(self, cluster: recipes.Cluster) -> None:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        self.strategy = tf.distribute.ParameterServerStrategy(resolver)
        if self.strategy.num_replicas_in_sync > 1:
            raise errors.InputError(
                f"engine.kind is parameter_server and a worker has {self.strategy.num_replicas_in_sync} GPUs, all of "
                "which would train on the same windows; give each worker one GPU, and more workers"
            )
        self.replicas = 1
        self.leads = True
        self._workers = len(cluster.processes["worker"])
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        self._latest: StepResult | None = None

    def begin(self, state: training_step.TrainingState, work: Work) -> None:
        """Takes the state, made under `strategy`, and the work."""
        self._state, self._work = state, work
        strategy = self.strategy

        @tf.function(autograph=False)
        def step(batches: tf.data.Iterator, *rates: tf.Tensor) -> tuple[Scalars, tf.Tensor]:
            images, labels, seed = next(batches)
            return strategy.run(state.step, args=(images, labels, seed, *rates)), seed[0]

        self._step = step
        endless = functools.partial(training_input.endless_batches, work.train, work.recipe, work.input_size)
        self._batches = iter(self._coordinator.create_per_worker_dataset(endless))
        self._evaluation_sums = tf.function(state.evaluation_sums, autograph=False)

    def steps(self, first: int, last: int) -> Generator[StepResult, None, None]:
        """Takes `last` − `first` steps; all are done, on whichever worker, when the iteration ends."""
        waiting: collections.deque[tf.distribute.coordinator.RemoteValue] = collections.deque()
        try:
            for step in range(first, last):
                waiting.append(self._coordinator.schedule(self._step, args=(self._batches, *self._work.rates(step))))
                if len(waiting) > QUEUED * self._workers:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            self._coordinator.join()

    def _result(self, remote: tf.distribute.coordinator.RemoteValue) -> StepResult:
        try:
            (loss, accuracy), stream = remote.fetch()
        except tf.errors.UnavailableError:
            # Its worker was lost after the step, and the numbers with it.
            if not self._latest:
                raise
            return self._latest._replace(stream=0)
        self._latest = StepResult(loss, accuracy, int(stream))
        return self._latest

    def evaluate(self) -> tuple[float, float, int]:
        """Returns and raises what `Synchronous.evaluate` does, computed on the chief."""
        # Read from the parameter servers once, not for every batch.
        sums = functools.partial(self._evaluation_sums, self._state.average_values())
        return _mean_of(sums, self._work.evaluation_batches(training_input.ALONE))

    def of_everyone(self, number: int) -> list[int]:
        """Returns the `number` of the chief, which alone decides."""
        return [number]


Running = Synchronous | ParameterServers


def start(engine: recipes.Engine) -> Running:
    """Returns the engine, started; an engine with a cluster must be started before anything else uses TensorFlow.

    Raises `InputError` if the options don't go together or `TF_CONFIG` does not describe such a cluster.
    """
    if engine.kind == "one_device":
        return Synchronous(tf.distribute.get_strategy(), share=training_input.ALONE, leads=True)
    if engine.kind == "mirrored":
        return Synchronous(tf.distribute.MirroredStrategy(), share=training_input.ALONE, leads=True)
    if engine.kind == "multi_worker":
        cluster = recipes.cluster_from_environment(engine.kind, ["worker"])
        chiefs = cluster.processes.get("chief", [])
        position = cluster.index + (len(chiefs) if cluster.job == "worker" else 0)
        processes = len(chiefs) + len(cluster.processes["worker"])
        log.info("Waiting for all %d workers", processes)
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        return Synchronous(strategy, share=training_input.Share(position, processes), leads=cluster.leads)
    return ParameterServers(recipes.cluster_from_environment(engine.kind, ["chief", "worker", "ps"]))


def synchronize_batch_norms(model: keras.Model, engine: recipes.Engine, replicas: int, batch_size: int) -> None:
    """Makes the model's batch norms use the batch of all replicas, if the engine does so with this batch.

    Raises `InputError` if the steps are compiled, since compiled replicas cannot exchange moments.
    """
    if replicas == 1 or not engine.synchronizes_batch_norm(batch_size // replicas):
        return
    if engine.xla:
        raise errors.InputError(
            f"engine.xla is true with {replicas} replicas of {batch_size // replicas} images, over all of which batch "
            "norm takes its moments; set engine.synchronized_batch_norm=false, or engine.xla=false"
        )
    for layer in layers.batch_norms(model):
        layer.synchronized = True


def serving_cluster(engine: recipes.Engine) -> recipes.Cluster | None:
    """Returns the cluster if this process is a worker or parameter server that the chief directs, else None."""
    if engine.kind != "parameter_server":
        return None
    cluster = recipes.cluster_from_environment(engine.kind, ["chief", "worker", "ps"])
    return None if cluster.job == "chief" else cluster


def serve(cluster: recipes.Cluster) -> None:
    """Serves as a worker or parameter server until the chief has been there and is gone."""
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    tf.distribute.Server(resolver.cluster_spec(), job_name=cluster.job, task_index=cluster.index, protocol="grpc")
    chief = cluster.processes["chief"][0]
    host, _, port = chief.rpartition(":")
    log.info("Serving as %s %d for the chief at %s", cluster.job, cluster.index, chief)
    seen, last = False, time.monotonic()
    while not seen or time.monotonic() - last < LOST_AFTER:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5.0):
            seen, last = True, time.monotonic()
        time.sleep(2.0)
    log.info("The chief is gone for %.0f s: ending", LOST_AFTER)
