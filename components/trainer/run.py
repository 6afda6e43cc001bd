"""`run_fn` of TFX's Trainer: from what TFX hands over to a training job."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import tensorflow as tf

from components.settings import by_section
from components.trainer import jobset_launch, training_job
from marco_model.errors import InputError
from marco_model.network import Network
from marco_model.recipe import Engine, Recipe
from marco_model.weights import initial_fingerprint


def run_fn(fn_args: Any) -> None:
    """Trains by `fn_args.custom_config` and writes the model to `fn_args.serving_model_dir`.

    `custom_config`: `classes` (names in index order), `network`, `recipe` and `engine` (their fields), `transform`
    (`shorter_side`, `quality`), `export` (`tflite`), `tracking` (`uri`, `experiment`, perhaps `artifacts`), `data`
    (`source`, `fingerprint`, perhaps `overlay`), `model_name`, `initial`, the fingerprint of the weights that training
    begins from, empty where it was not known, and `checkpoints`, a folder that outlives the step, so that a killed
    training is resumed. With `cluster`, the fields of `components.machines.Placement`, and its `replicas`
    training is on several nodes; with `custom_job` (`components.trainer.custom_job.run`) on several machines of
    Vertex AI.

    Raises `InputError` where the model that training begins from is not the one that it was, or is not there; else what
    `components.trainer.training_job.run` does, or `components.trainer.jobset_launch.run`.
    """
    config = with_best(fn_args.custom_config, fn_args.hyperparameters)
    training = job_of(fn_args, config)
    placement = jobset_launch.placement(config.get("cluster"))
    if config.get("custom_job"):
        from components.trainer import custom_job

        custom_job.run(training, config["custom_job"])
    elif placement:
        jobset_launch.run(training, placement)
    else:
        training.write()
        training_job.run(training)


def job_of(fn_args: Any, config: dict[str, Any]) -> training_job.Job:
    """Returns the job that TFX's arguments and a `custom_config` make; raises as `run_fn` does."""
    initial = initial_fingerprint(config["network"]["initial"])
    if config["initial"] not in ("", initial):
        raise InputError(f"the model in {config['network']['initial']} has changed since this run began; run again")
    key = training_key(config, fn_args.transform_graph_path, initial)
    return training_job.Job(
        key=key,
        name=f"{config['model_name']}-{key[:8]}",
        classes=list(config["classes"]),
        network=Network(**config["network"]),
        recipe=Recipe(**config["recipe"]),
        engine=Engine(**config["engine"]),
        transform=config["transform"],
        tflite=config["export"]["tflite"],
        tracking=config["tracking"],
        data=config["data"],
        train_files=_files(fn_args.train_files),
        eval_files=_files(fn_args.eval_files),
        checkpoints=f"{config['checkpoints']}/{key}",
        model_directory=fn_args.serving_model_dir,
    )


def with_best(config: dict[str, Any], found: dict[str, Any] | None) -> dict[str, Any]:
    """Returns `config` with the values that a Tuner found best, KerasTuner's `{"values": {"recipe.momentum": 0.9}}`."""
    best = by_section((found or {}).get("values", {}))
    return {**config, **{section: {**config[section], **values} for section, values in best.items()}}


def training_key(config: dict[str, Any], transform_graph: str, initial: str) -> str:
    """Returns a name for this training: the same recipe on the same transformed data from the same weights.

    `initial` is their fingerprint; where they lie does not matter. The engine is no part of it: a training begun on one
    is resumed on another.
    """
    told = {name: config[name] for name in ("classes", "network", "recipe", "transform", "data")}
    told["network"] = {**told["network"], "initial": initial}
    return hashlib.sha256(json.dumps([told, transform_graph], sort_keys=True).encode()).hexdigest()[:16]


def _files(patterns: list[str]) -> list[str]:
    return sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
