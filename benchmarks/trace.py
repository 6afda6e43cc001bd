"""Where the time of a step goes, from TensorFlow's profiler: kernels on a GPU, operations on a CPU."""

import collections
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

import benchmarks

ROWS = 25


def profile(step: Callable[[], Any], steps: int) -> str:
    """Returns the milliseconds of a step by kind of kernel, as a table, and the share in which the device was busy.

    `step` returns a scalar tensor, which is waited for; a first call, which may compile, is not counted.
    """
    float(step())
    with benchmarks.scratch() as folder:
        tf.profiler.experimental.start(str(folder))
        begun = time.perf_counter()
        for _ in range(steps):
            loss = step()
        float(loss)
        passed = time.perf_counter() - begun
        tf.profiler.experimental.stop()
        device, seconds = read(next(folder.rglob("*.xplane.pb")))
    milliseconds = {name: 1000 * duration / steps for name, duration in seconds.items()}
    busy = sum(milliseconds.values())
    lines = [f"{1000 * passed / steps:.2f} ms a step; in kernels on {device} {busy:.2f}, of which"]
    longest = sorted(milliseconds, key=lambda name: -milliseconds[name])[:ROWS]
    lines += [f"{milliseconds[name]:9.2f} ms {milliseconds[name] / busy:6.1%}  {name}" for name in longest]
    rest = busy - sum(milliseconds[name] for name in longest)
    return "\n".join([*lines, f"{rest:9.2f} ms {rest / busy:6.1%}  all others"])


def read(file: Path) -> tuple[str, dict[str, float]]:
    """Returns the name of the profiled device, and seconds by kind of kernel from a profile's file.

    Of the host these are operations; those that contain others, such as a compiled program's call, are left out.
    """
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    gpus = [plane for plane in space.planes if plane.name.startswith("/device:GPU")]
    seconds: collections.Counter[str] = collections.Counter()
    for plane in gpus or [plane for plane in space.planes if plane.name == "/host:CPU"]:
        for line in plane.lines:
            if gpus and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                if kind := kind_of(plane.event_metadata[event.metadata_id].name, on_gpu=bool(gpus)):
                    seconds[kind] += event.duration_ps / 1e12
    return "a GPU" if gpus else "the CPU", dict(seconds)


def kind_of(name: str, *, on_gpu: bool) -> str:
    """Returns the kind of a kernel from its name: without numbers on a GPU; on a CPU its type, or nothing if none."""
    if on_gpu:
        return re.sub(r"[._]\d+\b|<.*", "", name)[:100]
    operation = re.fullmatch(r"[^:]+:([A-Z_]\w*)", name)
    return operation[1] if operation else ""
