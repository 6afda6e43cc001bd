"""Who else trains: the cluster that `TF_CONFIG` tells of, TensorFlow's own convention."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

from marco_model.errors import InputError

VARIABLE = "TF_CONFIG"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes by job (`chief`, `worker`, `ps`), each as host:port, and which of them this is."""

    processes: Mapping[str, Sequence[str]]
    job: str
    index: int

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and the model: the chief, or the first worker where there is none."""
        return self.job == "chief" or (self.job == "worker" and self.index == 0 and "chief" not in self.processes)


def from_environment(kind: str, jobs: Sequence[str]) -> Cluster:
    """Returns the cluster of `TF_CONFIG`, which must have every one of `jobs`.

    Raises `InputError` where the variable is missing, is no JSON, or describes another kind of cluster.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        raise InputError(
            f"engine.kind is {kind} and {VARIABLE} is not set; start every process with it (docs/training.md), "
            "or set engine.kind=one_device"
        )
    try:
        told = json.loads(text)
        processes = {job: list(hosts) for job, hosts in told["cluster"].items()}
        job, index = told["task"]["type"], int(told["task"]["index"])
        processes[job][index]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{VARIABLE} is {text[:200]!r}; expected the JSON of TensorFlow's clusters, with cluster and task "
            f"({type(error).__name__}: {error})"
        ) from None
    missing = [name for name in jobs if not processes.get(name)]
    if missing:
        raise InputError(f"{VARIABLE} names no {' and no '.join(missing)}; engine.kind {kind} needs {', '.join(jobs)}")
    return Cluster(processes, job, index)
