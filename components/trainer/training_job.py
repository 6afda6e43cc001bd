"""A training as a file: all that a process needs to take part in it, on whatever machine.

The Trainer writes it beside the checkpoints and runs it; the other processes of a cluster run the same file with
`marco train`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from components import mlflow_runs
from marco_data.progress import progress
from marco_model import classifier, engines, preprocessing, tflite, training, training_input
from marco_model.batch_norm import fold
from marco_model.calibration import expected_calibration_error, fit_temperature
from marco_model.classifier import logits_only
from marco_model.engines import Running, serving_cluster, start
from marco_model.errors import InputError, Interrupted
from marco_model.network import RANDOM, Network, build
from marco_model.recipe import Engine, Recipe
from marco_model.weights import initialise


def write_model(
    model: keras.Model,
    network: Network,
    transform: dict[str, Any],
    name: str,
    directory: str,
    classes: Sequence[str],
    temperature: float = 1.0,
) -> None:
    """Exports the trained network for serving, with the Transform step's shrink in front and its temperature."""
    shorter_side = transform["shorter_side"]
    shrink = functools.partial(preprocessing.shrink, shorter_side=shorter_side, quality=transform["quality"])
    classifier.export(
        model,
        directory,
        classes=classes,
        input_size=network.input_size,
        preprocess=shrink if shorter_side else None,
        temperature=temperature,
        metadata={"name": name, **network.facts()},
    )


log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was fitted, and the expected calibration error (0 to 1) before and after on the same examples."""

    temperature: float
    error_before: float
    error_after: float


def calibrate(
    model: keras.Model, files: Sequence[str], *, images: int, input_size: int, batch_size: int
) -> Calibration:
    """Fits the temperature of `model` on all `images` examples of `files`, gzip TFRecords as training evaluates them.

    `model`: from float32 [batch, input_size, input_size, 3] in [-1, 1] to logits, with or without auxiliary head. It is
    run as it is exported, batch norms folded and in float32, by this process alone, whatever engine trained it.
    """
    logits, labels = evaluated(model, files, images=images, input_size=input_size, batch_size=batch_size)
    temperature = fit_temperature(logits, labels)
    before, after = (
        expected_calibration_error(softmax(logits / divisor, axis=1), labels) for divisor in (1.0, temperature)
    )
    log.info("Temperature %.3f: expected calibration error %.4f, %.4f without", temperature, after, before)
    return Calibration(temperature, before, after)


def evaluated(
    model: keras.Model, files: Sequence[str], *, images: int, input_size: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits, float32 [images, classes], and labels, int64 [images], of all examples in a fixed order."""
    network = fold(logits_only(model))

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        return network(pixels, training=False)

    batches = training_input.evaluation_batches(list(files), images=images, size=input_size, batch_size=batch_size)
    logits, labels = [], []
    with progress("Calibrating", images) as advance:
        for pixels, told in batches:
            real = told.numpy() != training_input.PADDING
            logits.append(forward(pixels).numpy()[real])
            labels.append(told.numpy()[real])
            advance(int(real.sum()))
    return np.concatenate(logits), np.concatenate(labels)


FILE = "job.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained on what, and where it goes; paths are local or URIs, and the same for every process.

    `key` names the training, `name` the model. `classes`: names in index order. `transform`: `shorter_side` and
    `quality`. `tracking`: `uri`, `experiment` and perhaps `artifacts`. `data`: `source`, `fingerprint`, perhaps
    `overlay`. `checkpoints`: a folder of this training's own. `model_directory`: where the SavedModel goes, with
    `tflite` a TFLite model in it.
    """

    key: str
    name: str
    classes: list[str]
    network: Network
    recipe: Recipe
    engine: Engine
    transform: dict[str, Any]
    tracking: dict[str, str]
    data: dict[str, str]
    train_files: list[str]
    eval_files: list[str]
    checkpoints: str
    model_directory: str
    tflite: bool = False

    def write(self) -> None:
        """Writes the job as `job.json` into its folder of checkpoints."""
        tf.io.gfile.makedirs(self.checkpoints)
        with tf.io.gfile.GFile(f"{self.checkpoints}/{FILE}", "w") as file:
            json.dump(dataclasses.asdict(self), file, indent=2)


def read(path: str) -> Job:
    """Returns the job in a file; raises `InputError` where there is none."""
    try:
        with tf.io.gfile.GFile(path) as file:
            told = json.load(file)
        kinds = {"network": Network, "recipe": Recipe, "engine": Engine}
        return Job(**told | {name: kind(**told[name]) for name, kind in kinds.items()})
    except (tf.errors.OpError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no training job ({' '.join(str(error).split())[:200]}); give the {FILE} that a run's Trainer "
            "wrote beside its checkpoints"
        ) from error


def run(job: Job) -> None:
    """Takes this process's part in the job; the one that leads writes checkpoints, the model and the MLflow run.

    Raises what `marco_model.training.train` does.
    """
    serving = serving_cluster(job.engine)
    if serving:
        engines.serve(serving)
        return
    running = start(job.engine)
    counts = count(job)
    if not running.leads:
        train(job, running, counts)
        return
    with tracked(job, counts) as run:
        model, trained = train(job, running, counts, run)
        calibration = calibrate(
            model,
            job.eval_files,
            images=counts["eval"],
            input_size=job.network.input_size,
            batch_size=job.recipe.batch_size,
        )
        run.log_slices({f"calibration/{name}": value for name, value in dataclasses.asdict(calibration).items()})
        write_model(
            model,
            job.network,
            job.transform,
            job.name,
            job.model_directory,
            job.classes,
            calibration.temperature,
        )
        if job.tflite:
            tflite.add(job.model_directory, job.classes, job.eval_files)
        record = {
            "mlflow_run_id": run.run_id,
            "tracking_uri": run.tracking_uri,
            **dataclasses.asdict(trained),
            "calibration": dataclasses.asdict(calibration),
        }
        model_artifact = job.model_directory.rstrip("/").rpartition("/")[0]
        with tf.io.gfile.GFile(f"{model_artifact}/{mlflow_runs.TRAINING_FILE}", "w") as file:
            json.dump(record, file, indent=2)


def count(job: Job) -> dict[str, int]:
    """Returns how many examples each split has."""
    return {"train": training_input.count(job.train_files), "eval": training_input.count(job.eval_files)}


@contextlib.contextmanager
def tracked(job: Job, counts: dict[str, int]) -> Iterator[mlflow_runs.Run]:
    """Opens the job's MLflow run and closes it with how the training ended."""
    told = job.tracking
    run = mlflow_runs.open_run(told["uri"], told["experiment"], job.key, job.name, told.get("artifacts"))
    sections = {"network": dataclasses.asdict(job.network), "recipe": dataclasses.asdict(job.recipe)}
    run.log_recipe({**sections, "transform": job.transform, "classes": ", ".join(job.classes)})
    run.log_data(name="marco", counts=counts, **job.data)
    # Tags, since a training may be resumed on another engine and MLflow's parameters never change.
    run.set_tags({f"engine.{name}": str(value) for name, value in dataclasses.asdict(job.engine).items()})
    try:
        yield run
    except Interrupted:
        run.close("KILLED")
        raise
    except BaseException:
        run.close("FAILED")
        raise
    run.close()


def train(
    job: Job, running: Running, counts: dict[str, int], run: mlflow_runs.Run | None = None
) -> tuple[Any, training.TrainingResult]:
    """Returns the trained network and how training ended; curves go to `run`, and a progress bar is shown with it."""
    model = build(job.network, num_classes=len(job.classes), seed=job.recipe.seed, dtype_policy=job.engine.dtype_policy)
    initialise(model, job.network, job.classes)
    listeners: dict[str, Any] = {}
    with contextlib.ExitStack() as bars:
        if run:
            advance = bars.enter_context(progress("Training", job.recipe.steps, "steps"))
            listeners = {
                "on_resume": lambda step: advance(step, earlier=True),
                "on_step": advance,
                "on_metrics": run.log_curves,
            }
        return model, training.train(
            model,
            job.recipe,
            input_size=job.network.input_size,
            train_files=job.train_files,
            eval_files=job.eval_files,
            train_images=counts["train"],
            eval_images=counts["eval"],
            checkpoint_directory=job.checkpoints,
            evaluate_first=job.network.initial != RANDOM,
            engine=job.engine,
            running=running,
            **listeners,
        )
