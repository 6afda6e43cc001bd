"""From an engine's configuration to the engine."""

from __future__ import annotations

import logging

import keras
import tensorflow as tf

from marco_model.batch_norm import batch_norms
from marco_model.engine import Engine
from marco_model.engines import cluster as clusters
from marco_model.engines.parameter_server import ParameterServers
from marco_model.engines.synchronous import Synchronous
from marco_model.errors import InputError
from marco_model.training_input import ALONE, Share

log = logging.getLogger(__name__)

Running = Synchronous | ParameterServers


def start(engine: Engine) -> Running:
    """Returns the engine, started; of the kinds with a cluster, before anything else uses TensorFlow.

    Raises `InputError` where the options don't go together or `TF_CONFIG` does not describe such a cluster.
    """
    if engine.kind == "one_device":
        return Synchronous(tf.distribute.get_strategy(), share=ALONE, leads=True)
    if engine.kind == "mirrored":
        return Synchronous(tf.distribute.MirroredStrategy(), share=ALONE, leads=True)
    if engine.kind == "multi_worker":
        cluster = clusters.from_environment(engine.kind, ["worker"])
        processes = [*cluster.processes.get("chief", []), *cluster.processes["worker"]]
        position = cluster.index + (len(cluster.processes.get("chief", [])) if cluster.job == "worker" else 0)
        log.info("Waiting for all %d workers", len(processes))
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        return Synchronous(strategy, share=Share(position, len(processes)), leads=cluster.leads)
    return ParameterServers(clusters.from_environment(engine.kind, ["chief", "worker", "ps"]))


def serves_only(engine: Engine) -> clusters.Cluster | None:
    """Returns the cluster where this process is a worker or parameter server that the chief directs."""
    if engine.kind != "parameter_server":
        return None
    cluster = clusters.from_environment(engine.kind, ["chief", "worker", "ps"])
    return None if cluster.job == "chief" else cluster


def prepare(model: keras.Model, engine: Engine, replicas: int) -> None:
    """Has the model's batch norms run over all replicas, where the engine is to.

    Raises `InputError` where that is asked of compiled steps, which cannot speak to each other.
    """
    if replicas == 1 or not engine.synchronized_batch_norm:
        return
    if engine.xla:
        raise InputError(
            f"engine.xla is true with {replicas} replicas and synchronized_batch_norm; set one of the two to false"
        )
    for layer in batch_norms(model):
        layer.synchronized = True
