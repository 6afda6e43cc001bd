"""One process of a training, for tests that need several; `TF_CONFIG` is in its environment."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time

import keras
import numpy as np
import tensorflow as tf

from marco_model import engines, example_files, layers, training, training_step
from marco_model.errors import ClusterError, Interrupted
from marco_model.recipe import Engine
from tests.marco_model import rmsprop_steps, small_problem

CLUSTER_ERROR, INTERRUPTED = 3, 4


def run_rmsprop(kind, result):
    """Writes the weights after a thousand steps under the engine to the file `result`."""
    if running := _start(kind):
        np.savez(result, weights=rmsprop_steps.by_ours(running.strategy))
        _wait_for_workers(result)


def run_compiled_steps(kind, result, recipe):
    """Writes the state after twelve steps of the engine, compiled and not, to the file `result`.

    `recipe` changes the small recipe.
    """
    running = _start(kind)
    values, recipe = {}, dataclasses.replace(small_problem.RECIPE, **recipe)
    for xla in (False, True):
        model, head = _network(recipe), None
        if recipe.adversarial_weight:
            model, head = layers.with_source_head(model, 2, seed=0)
        with running.strategy.scope():
            state = training_step.TrainingState(model, recipe, xla=xla, source_head=head)
        index = example_files.RecordIndex((), *[np.zeros(64, np.int64)] * 3)
        running.begin(state, engines.Work(recipe, small_problem.SIZE, index, index))
        rng = np.random.default_rng(0)
        for step in range(12):
            images = rng.integers(0, 256, (recipe.batch_size, small_problem.SIZE, small_problem.SIZE, 3), np.uint8)
            labels = np.arange(recipe.batch_size) % 2
            if recipe.adversarial_weight:
                labels = np.stack([labels, labels, labels - 1], axis=1)
            running.step(tf.constant(images), tf.constant(labels), step)
        values |= {f"{xla} {name}": value for name, value in state.values().items()}
    np.savez(result, **values)
    _wait_for_workers(result)


def run_training(kind, result, folder, recipe, pause=0.0, xla=False, own_checkpoints=False):
    """Trains on `train.tfrecord` and `eval.tfrecord` of a folder; prints `step` after each step, then rests `pause` s.

    Writes what training left in the model, and how it ended, to the file `result`. `recipe` changes the small recipe.
    `own_checkpoints`: this worker's are in a folder that ends in its number.
    """
    running = _start(kind)
    if not running:
        return
    own = json.loads(os.environ["TF_CONFIG"])["task"]["index"] if own_checkpoints else ""

    def on_step():
        print("step", flush=True)
        time.sleep(pause)

    recipe = dataclasses.replace(small_problem.RECIPE, **recipe)
    model = _network(recipe)
    options = {"engine": Engine(kind=kind, xla=xla), "running": running, "on_step": on_step}
    options["checkpoint_directory"] = f"{folder}/checkpoints{own}"
    try:
        trained = _train(model, recipe, folder, **options)
    except (ClusterError, Interrupted) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(CLUSTER_ERROR if isinstance(error, ClusterError) else INTERRUPTED)
    np.savez(result, *model.get_weights(), trained=json.dumps(dataclasses.asdict(trained)))


def run_with_large_checkpoints(folder, checkpoints, steps, every, changes):
    """Trains a network whose checkpoints take a while to write; prints the step it resumes from and a dot per step.

    `changes` changes the small recipe.
    """
    recipe = dataclasses.replace(
        small_problem.RECIPE,
        steps=steps,
        checkpoint_every=every,
        evaluate_every=25,
        patience=steps,
        learning_rate=0.002,
        **changes,
    )
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((small_problem.SIZE, small_problem.SIZE, 3)),
            keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv"),
            keras.layers.BatchNormalization(scale=False, momentum=0.5, name="norm"),
            keras.layers.Conv2D(1024, 7, activation="relu", name="wide"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, name="logits"),
        ],
        name="small",
    )
    if recipe.raw_weight:
        model = layers.with_raw_head(keras.Model(model.inputs, model.outputs[0], name="small"), 3, seed=0)
    _train(
        model,
        recipe,
        folder,
        checkpoint_directory=str(checkpoints),
        on_resume=lambda step: print(f"{step} ", end="", flush=True),
        on_step=lambda: print(".", end="", flush=True),
    )


def _start(kind):
    """Returns the running engine, or None after a process that only serves others has ended."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if kind == "mirrored":
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    engine = Engine(kind=kind)
    if serving := engines.serving_cluster(engine):
        engines.serve(serving)
        return None
    return engines.start(engine)


def _wait_for_workers(result):
    """Waits for the results of all workers: the first that ends takes its connections away from the others."""
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    workers = config["cluster"]["worker"] if config and config["task"]["type"] == "worker" else []
    deadline = time.monotonic() + 60
    while not all(result.with_name(f"worker{index}.npz").exists() for index in range(len(workers))):
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _network(recipe):
    return small_problem.network_with_raw_head() if recipe.raw_weight else small_problem.network()


def _train(model, recipe, folder, **options):
    files = {"train_records": [str(folder / "train.tfrecord")], "validation_records": [str(folder / "eval.tfrecord")]}
    targets = example_files.find_targets(recipe, files["train_records"])
    records = {
        name: dataclasses.replace(example_files.read_index(paths), targets=targets) for name, paths in files.items()
    }
    defaults = {"checkpoint_directory": str(folder / "checkpoints")}
    return training.train(
        model,
        recipe,
        input_size=small_problem.SIZE,
        **records,
        **{**defaults, **options},
    )
