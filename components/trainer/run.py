"""`run_fn` of TFX's Trainer: the wiring between a pipeline's step, `marco_model`'s training and MLflow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import tensorflow as tf

from components.mlflow_tracking import tracking
from components.trainer.build import write_model
from marco_data.progress import progress
from marco_model import training, training_input
from marco_model.initial import initialise
from marco_model.network import Network, build
from marco_model.recipe import Recipe


def run_fn(fn_args: Any) -> None:
    """Trains by `fn_args.custom_config` and writes the model to `fn_args.serving_model_dir`.

    `custom_config`: `classes` (names in index order), `network` and `recipe` (their fields), `transform`
    (`shorter_side`, `quality`), `tracking` (`uri`, `experiment`), `data` (`source`, `fingerprint`), `model_name`, and
    `checkpoints`, a folder that outlives the step, so that a killed training is resumed.
    """
    config = fn_args.custom_config
    network, recipe = Network(**config["network"]), Recipe(**config["recipe"])
    files = {"train": _files(fn_args.train_files), "eval": _files(fn_args.eval_files)}
    counts = {split: training_input.count(paths) for split, paths in files.items()}
    key = training_key(config, fn_args.transform_graph_path)
    run = _open_run(config, key, counts)
    try:
        model = build(network, num_classes=len(config["classes"]), seed=recipe.seed)
        initialise(model, network, config["classes"])
        trained = _train(model, network, recipe, run, files, counts, f"{config['checkpoints']}/{key}")
        name = f"{config['model_name']}-{key[:8]}"
        write_model(model, network, config["transform"], name, fn_args.serving_model_dir, config["classes"])
    except BaseException:
        run.close("FAILED")
        raise
    record = {"mlflow_run_id": run.run_id, "tracking_uri": run.tracking_uri, **dataclasses.asdict(trained)}
    model_artifact = fn_args.serving_model_dir.rstrip("/").rpartition("/")[0]
    with tf.io.gfile.GFile(f"{model_artifact}/{tracking.TRAINING_FILE}", "w") as file:
        json.dump(record, file, indent=2)
    run.close()


def training_key(config: dict[str, Any], transform_graph: str) -> str:
    """Returns a name for this training: the same recipe on the same transformed data, the same name."""
    told = {name: config[name] for name in ("classes", "network", "recipe", "transform", "data")}
    return hashlib.sha256(json.dumps([told, transform_graph], sort_keys=True).encode()).hexdigest()[:16]


def _files(patterns: list[str]) -> list[str]:
    return sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))


def _open_run(config: dict[str, Any], key: str, counts: dict[str, int]) -> tracking.Run:
    name = f"{config['model_name']}-{key[:8]}"
    run = tracking.open_run(config["tracking"]["uri"], config["tracking"]["experiment"], key, name)
    told = {section: config[section] for section in ("network", "recipe", "transform")}
    run.log_recipe({**told, "classes": ", ".join(config["classes"])})
    run.log_data(name="marco", counts=counts, **config["data"])
    return run


def _train(
    model: Any,
    network: Network,
    recipe: Recipe,
    run: tracking.Run,
    files: dict[str, list[str]],
    counts: dict[str, int],
    checkpoints: str,
) -> training.Trained:
    with progress("Training", recipe.steps, "steps") as advance:
        return training.train(
            model,
            recipe,
            input_size=network.input_size,
            train_files=files["train"],
            eval_files=files["eval"],
            train_images=counts["train"],
            eval_images=counts["eval"],
            checkpoint_directory=checkpoints,
            on_resume=lambda step: advance(step, earlier=True),
            on_step=advance,
            on_metrics=run.log_curves,
        )
