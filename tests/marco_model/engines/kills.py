"""Trains in processes that are killed at random moments: `kills.py FOLDER KILLS`; prints what was found as JSON.

The processes are forks of one that has imported TensorFlow and not used it, so that each starts in a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import sys
import time

import keras
import tensorflow as tf  # noqa: F401
from program import module

from marco_model import training

HERE = pathlib.Path(__file__).parent
EVERY = 10


def train(folder, checkpoints, steps, tell):
    """Trains a network whose checkpoints take a while to write; `tell` gets each finished step."""
    small = module(HERE.parent / "test_training.py")
    recipe = dataclasses.replace(
        small.RECIPE, steps=steps, checkpoint_every=EVERY, evaluate_every=25, patience=steps, learning_rate=0.002
    )
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((small.SIZE, small.SIZE, 3)),
            keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv"),
            keras.layers.BatchNormalization(scale=False, momentum=0.5, name="norm"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(1024, activation="relu", name="wide"),
            keras.layers.Dense(2, name="logits"),
        ],
        name="small",
    )
    training.train(
        model,
        recipe,
        input_size=small.SIZE,
        train_files=[str(folder / "train.gz")],
        eval_files=[str(folder / "eval.gz")],
        train_images=60,
        eval_images=20,
        checkpoint_directory=str(checkpoints),
        on_resume=tell,
        on_step=lambda: tell(None),
    )


def start(*work):
    """Forks a process that trains; returns its id and the end of a pipe with a byte a step."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child:
        os.close(theirs)
        return child, ours
    done = 1
    try:
        train(*work, lambda resumed: os.write(theirs, b"." if resumed is None else f"<{resumed}>".encode()))
        done = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(done)


def taken(pipe):
    """Returns the step from which a process went on and the last that it finished."""
    told = b"".join(iter(lambda: os.read(pipe, 65536), b"")).decode()
    os.close(pipe)
    first = int(told[1 : told.index(">")]) if told.startswith("<") else 0
    return first, first + told.count(".")


def files(checkpoints, ending):
    """Returns the files of that ending with the time of their last change."""
    return {(entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(checkpoints) if entry.name.endswith(ending)}


def wait_for_another(checkpoints, ending):
    """Waits until there is a file of that ending that was not there before."""
    before, until = files(checkpoints, ending), time.monotonic() + 60.0
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):  # renamed between two calls
            if files(checkpoints, ending) - before:
                return
        time.sleep(0.0002)


def main():
    folder, kills = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    steps, rng = 20 * kills, random.Random(0)
    checkpoints, lost, during_a_write = folder / "killed", [], 0
    checkpoints.mkdir()
    for number in range(kills):
        saved = max(training.steps(str(checkpoints)), default=0)
        child, pipe = start(folder, checkpoints, steps)
        before = files(checkpoints, ".partial")
        if number % 3 == 0:
            time.sleep(rng.uniform(1.0, 6.0))
        elif number % 3 == 1:
            wait_for_another(checkpoints, ".npz")
            time.sleep(rng.uniform(0.0, 0.4))
        else:
            wait_for_another(checkpoints, ".partial")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        during_a_write += bool(files(checkpoints, ".partial") - before)
        first, last = taken(pipe)
        assert first in (0, saved), (first, saved)
        lost.append(max(last, saved) - max(training.steps(str(checkpoints)), default=0))
    ends = []
    for where in (checkpoints, folder / "whole"):
        child, pipe = start(folder, where, steps)
        assert os.waitpid(child, 0)[1] == 0
        taken(pipe)
        ends.append(training.newest(str(where)))
    same = all((ends[0].values[name] == ends[1].values[name]).all() for name in ends[1].values)
    print(json.dumps({"lost": lost, "during_a_write": during_a_write, "same": same, "step": ends[0].step, "of": steps}))


if __name__ == "__main__":
    main()
