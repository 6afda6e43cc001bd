"""One process of a training, for tests that need several: `program.py TASK KIND FOLDER RESULT`.

`rmsprop` writes the weights after a thousand steps to RESULT, `train` what training left in the model and how it ended.
FOLDER holds `train.gz` and `eval.gz`. The environment gives `TF_CONFIG`; `STEPS` is JSON that changes the recipe.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import pathlib
import sys
import time

import numpy as np


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def main():
    task, kind, folder, result = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    import tensorflow as tf

    from marco_model import engines, training
    from marco_model.errors import ClusterError, Interrupted
    from marco_model.recipe import Engine

    if kind == "mirrored":
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    engine = Engine(kind=kind)
    serving = engines.serves_only(engine)
    if serving:
        engines.serve(serving)
        return
    running = engines.start(engine)
    here = pathlib.Path(__file__).parent
    if task == "rmsprop":
        np.savez(result, weights=module(here.parent / "test_rmsprop.py").ours(running.strategy))
        return
    small = module(here.parent / "test_training.py")
    recipe = dataclasses.replace(small.RECIPE, **json.loads(os.environ.get("RECIPE", "{}")))
    pause = float(os.environ.get("PAUSE", "0"))

    def on_step():
        print("step", flush=True)
        time.sleep(pause)

    model = small.network()
    try:
        trained = training.train(
            model,
            recipe,
            input_size=small.SIZE,
            train_files=[str(folder / "train.gz")],
            eval_files=[str(folder / "eval.gz")],
            train_images=60,
            eval_images=20,
            checkpoint_directory=str(folder / "checkpoints"),
            engine=engine,
            running=running,
            on_step=on_step,
        )
    except (ClusterError, Interrupted) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(3 if isinstance(error, ClusterError) else 4)
    np.savez(result, *model.get_weights(), trained=json.dumps(dataclasses.asdict(trained)))


if __name__ == "__main__":
    main()
