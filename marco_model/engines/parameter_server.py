"""Asynchronous workers and parameter servers, as the paper trained: each worker takes steps at its own pace.

A worker reads the weights as they are, and what it adds arrives when others have moved them on. That is not
repeatable, and needs no worker in particular: the coordinator gives a lost worker's steps to the others.
"""

from __future__ import annotations

import collections
import logging
import socket
import time
from collections.abc import Generator

import tensorflow as tf

from marco_model import training_input
from marco_model.engines.cluster import Cluster
from marco_model.engines.work import Scalars, StepResult, Work
from marco_model.training_state import TrainingState

log = logging.getLogger(__name__)

QUEUED = 4
"""Steps given out ahead for each worker, so that none waits for the chief."""

LOST_AFTER = 60.0
"""Seconds without a chief after which a worker or parameter server that had one ends."""


class ParameterServers:
    """Hands a state's steps to workers, while the variables lie on the parameter servers; runs on the chief."""

    def __init__(self, cluster: Cluster) -> None:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        self.strategy = tf.distribute.ParameterServerStrategy(resolver)
        self.replicas = 1
        self.leads = True
        self._workers = len(cluster.processes["worker"])
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)

    def begin(self, state: TrainingState, work: Work) -> None:
        """Takes the state, made under `strategy`, and what to train it on."""
        self._work = work
        strategy = self.strategy

        @tf.function(autograph=False)
        def step(batches: tf.data.Iterator, rate: tf.Tensor, decay: tf.Tensor) -> tuple[Scalars, tf.Tensor]:
            images, labels, seed = next(batches)
            return strategy.run(state.step, args=(images, labels, seed, rate, decay)), seed[0]

        self._step = step
        # tf.data compares its seeds in Python where the global one is 0, which a stream's tensor cannot stand.
        tf.random.set_seed(work.recipe.seed + 1)
        self._batches = iter(self._coordinator.create_per_worker_dataset(work.endless))
        self._sums = tf.function(state.evaluation_sums, autograph=False)

    def steps(self, first: int, last: int) -> Generator[StepResult, None, None]:
        """Takes `last` − `first` steps; all are done, on whichever worker, when the iteration ends."""
        waiting: collections.deque = collections.deque()
        try:
            for step in range(first, last):
                waiting.append(self._coordinator.schedule(self._step, args=(self._batches, *self._work.rates(step))))
                if len(waiting) > QUEUED * self._workers:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            self._coordinator.join()

    @staticmethod
    def _result(remote: tf.distribute.coordinator.RemoteValue) -> StepResult:
        (loss, accuracy), stream = remote.fetch()
        return StepResult(loss, accuracy, int(stream))

    def evaluate(self) -> tuple[float, float]:
        """Returns mean cross-entropy and accuracy of the running average, computed on the chief."""
        total = tf.zeros([3])
        for images, labels in self._work.evaluation(training_input.ALONE):
            total += self._sums(images, labels)
        entropy, right, count = (float(value) for value in total)
        return entropy / count, right / count

    def anyone(self, flag: bool) -> bool:
        """Returns `flag`: the chief alone decides."""
        return flag


def serve(cluster: Cluster) -> None:
    """Serves as a worker or parameter server until the chief has come and gone."""
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    tf.distribute.Server(resolver.cluster_spec(), job_name=cluster.job, task_index=cluster.index, protocol="grpc")
    chief = cluster.processes["chief"][0]
    log.info("Serving as %s %d for the chief at %s", cluster.job, cluster.index, chief)
    seen, last = False, time.monotonic()
    while not seen or time.monotonic() - last < LOST_AFTER:
        if _answers(chief):
            seen, last = True, time.monotonic()
        time.sleep(2.0)
    log.info("The chief is gone for %.0f s: ending", LOST_AFTER)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5.0):
            return True
    except OSError:
        return False
