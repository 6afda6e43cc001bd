"""A training as a file: all that a process needs to take part in it, on whatever machine.

The Trainer writes it beside the checkpoints and runs it; the other processes of a cluster run the same file with
`marco train`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from components.mlflow_tracking import tracking
from components.trainer.build import write_model
from components.trainer.calibrate import calibrate
from marco_data.progress import progress
from marco_model import tflite, training, training_input
from marco_model.engine import Engine
from marco_model.engines import parameter_server
from marco_model.engines.start import Running, serves_only, start
from marco_model.errors import InputError, Interrupted
from marco_model.initial import initialise
from marco_model.network import RANDOM, Network, build
from marco_model.recipe import Recipe

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
    serving = serves_only(job.engine)
    if serving:
        parameter_server.serve(serving)
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
        with tf.io.gfile.GFile(f"{model_artifact}/{tracking.TRAINING_FILE}", "w") as file:
            json.dump(record, file, indent=2)


def count(job: Job) -> dict[str, int]:
    """Returns how many examples each split has."""
    return {"train": training_input.count(job.train_files), "eval": training_input.count(job.eval_files)}


@contextlib.contextmanager
def tracked(job: Job, counts: dict[str, int]) -> Iterator[tracking.Run]:
    """Opens the job's MLflow run and closes it with how the training ended."""
    told = job.tracking
    run = tracking.open_run(told["uri"], told["experiment"], job.key, job.name, told.get("artifacts"))
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
    job: Job, running: Running, counts: dict[str, int], run: tracking.Run | None = None
) -> tuple[Any, training.Trained]:
    """Returns the trained network and how training ended; curves go to `run`, and a progress bar is shown with it."""
    model = build(job.network, num_classes=len(job.classes), seed=job.recipe.seed, dtype_policy=job.engine.dtype_policy)
    initialise(model, job.network, job.classes)
    with progress("Training", job.recipe.steps, "steps") if run else contextlib.nullcontext() as advance:
        listeners = (
            {
                "on_resume": lambda step: advance(step, earlier=True),
                "on_step": advance,
                "on_metrics": run.log_curves,
            }
            if run
            else {}
        )
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
