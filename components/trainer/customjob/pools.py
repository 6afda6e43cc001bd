"""The CustomJob of a training: which machines, with what, told what.

Vertex AI tells each process of the others by `TF_CONFIG`: pool 0 is the `chief`, pool 1 the `worker`s, pool 2 the `ps`.
Source: https://cloud.google.com/vertex-ai/docs/training/distributed-training
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from marco_model.engine import Engine
from marco_model.errors import InputError

TRAINING, ATTEMPT = "marco-training", "marco-attempt"


@dataclasses.dataclass(frozen=True)
class Machines:
    """The machines of a training: `workers` counts all that train, the chief among them.

    `parameter_servers` are those of `engine.kind` `parameter_server`. Types of machines and accelerators are Vertex
    AI's own, such as n1-standard-16 and NVIDIA_TESLA_T4.
    """

    workers: int = 2
    parameter_servers: int = 0
    machine_type: str = "n1-standard-16"
    accelerator: str = ""
    accelerators: int = 0
    parameter_server_machine_type: str = "n1-highmem-8"
    # Hours after which Vertex AI ends the job, so that one that nobody follows any more does not cost for ever.
    hours: float = 168.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.workers < 2 or self.parameter_servers < 0 or self.hours <= 0:
            raise ValueError(
                f"machines has workers {self.workers}, parameter_servers {self.parameter_servers} and hours "
                f"{self.hours}; give at least 2, 0 and more than 0, or leave machines out"
            )
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError(
                f"machines has accelerator {self.accelerator!r} and accelerators {self.accelerators}; give both"
            )


def check(engine: Engine, machines: Machines) -> None:
    """Raises `InputError` where engine and machines don't go together."""
    told = f"engine.kind is {engine.kind} and machines has workers {machines.workers}, parameter_servers " + str(
        machines.parameter_servers
    )
    if engine.kind not in ("multi_worker", "parameter_server"):
        raise InputError(f"{told}; set engine.kind to multi_worker or parameter_server, or leave machines out")
    if (engine.kind == "parameter_server") != bool(machines.parameter_servers):
        raise InputError(f"{told}; parameter_server needs at least 1 of them, multi_worker takes none")


def custom_job(
    key: str,
    attempt: str,
    engine: Engine,
    machines: Machines,
    *,
    image: str,
    environment: Mapping[str, str],
    job_file: str,
    service_account: str,
    network: str,
) -> dict[str, Any]:
    """Returns the CustomJob that runs `job_file`, the training `key`, with `marco train`."""
    check(engine, machines)
    container = {
        "image_uri": image,
        "command": ["marco", "train", job_file],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
    }
    machine: dict[str, Any] = {"machine_type": machines.machine_type}
    if machines.accelerators:
        machine |= {"accelerator_type": machines.accelerator, "accelerator_count": machines.accelerators}
    plain = {"machine_type": machines.parameter_server_machine_type}
    counts = [(1, machine), (machines.workers - 1, machine), (machines.parameter_servers, plain)]
    spec: dict[str, Any] = {
        "worker_pool_specs": [
            {"replica_count": count, "machine_spec": kind, "container_spec": container}
            for count, kind in counts
            if count
        ],
        # Synchronous workers end with one of them, and begin anew together from the last checkpoint.
        "scheduling": {
            "timeout": {"seconds": int(machines.hours * 3600)},
            "restart_job_on_worker_restart": engine.kind == "multi_worker",
        },
    }
    if service_account:
        spec["service_account"] = service_account
    if network:
        spec["network"] = network
    return {"display_name": f"marco-{key}", "job_spec": spec, "labels": {TRAINING: key[:63], ATTEMPT: attempt}}
