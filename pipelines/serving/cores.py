"""How many threads the model should use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""The container's share of processor time: microseconds allowed, or `max`, in a period (cgroup v2)."""


def cores(cpu_max: Path = CPU_MAX) -> int:
    """Returns the cores that this process may use: those it is bound to, or fewer where its container is held to less.

    TensorFlow by itself takes a thread for each core of the machine; in a container held to two cores of 64 these stand
    in each other's way, and all are stopped once the share is used up.
    """
    bound = len(os.sched_getaffinity(0))
    try:
        allowed, period = cpu_max.read_text().split()
        return max(1, min(bound, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):
        return bound
