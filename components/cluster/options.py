"""Resources, volumes and secrets of the containers that a run starts on Kubernetes: `cluster` of a configuration."""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar, Literal

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?")
_BYTES = {
    None: 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def quantity_bytes(quantity: str) -> int:
    """Returns the bytes of a Kubernetes quantity such as `8Gi`; raises `ValueError` for what is none."""
    match = _QUANTITY.fullmatch(quantity)
    if not match:
        raise ValueError(f"{quantity!r} is no quantity of memory; write it as 8Gi or 500M")
    return round(float(match[1]) * _BYTES[match[2]])


@dataclasses.dataclass(frozen=True)
class Toleration:
    """A taint that a pod puts up with, in Kubernetes' own terms."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one container gets, as request and limit alike."""

    # Cores.
    cpu: float = 2
    # A Kubernetes quantity.
    memory: str = "8Gi"
    # GPUs, and what the cluster calls them.
    accelerators: int = 0
    accelerator: str = "nvidia.com/gpu"
    # Size of /dev/shm, a Kubernetes quantity; empty leaves the container runtime's 64 MiB.
    shared_memory: str = ""
    node_selector: dict[str, str] = dataclasses.field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.cpu <= 0:
            raise ValueError(f"cpu {self.cpu} is not above 0; give cores, such as 0.5 or 4")
        if self.accelerators < 0:
            raise ValueError(f"accelerators {self.accelerators} is below 0; give a count")
        quantity_bytes(self.memory)
        if self.shared_memory:
            quantity_bytes(self.shared_memory)


@dataclasses.dataclass(frozen=True)
class Volume:
    """A PersistentVolumeClaim, mounted at `path`."""

    claim: str
    path: str
    # Of the replicas of a training alone: packages of Kubeflow Pipelines know no such mount, so steps may write. What
    # nobody may write, the claim itself must refuse (access mode ReadOnlyMany).
    read_only: bool = False

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclasses.dataclass(frozen=True)
class Secret:
    """A Secret of the namespace: `variables` maps an environment variable to a key of it, `path` mounts it whole."""

    name: str
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    path: str = ""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclasses.dataclass(frozen=True)
class Replicas:
    """A training on several nodes: the processes of its JobSet beside the Trainer step.

    `workers` counts all that train, the chief among them, each with the resources `worker`; `parameter_servers` are
    those of `engine.kind` `parameter_server`. `restarts`: how often the whole set starts anew from its last checkpoint
    before the step fails. `priority_class`: theirs, a PriorityClass of the cluster; k8s/ sets up `marco-training`.
    """

    workers: int = 2
    parameter_servers: int = 0
    worker: Resources = Resources()
    parameter_server: Resources = Resources()
    restarts: int = 0
    service_account: str = "marco-training"
    priority_class: str = ""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.workers < 1 or self.parameter_servers < 0 or self.restarts < 0:
            raise ValueError(
                f"workers {self.workers}, parameter_servers {self.parameter_servers} and restarts {self.restarts}: "
                "give at least 1, 0 and 0"
            )


@dataclasses.dataclass(frozen=True)
class Placement:
    """What every container of a run on Kubernetes shares.

    `image`: this project's, best by digest. `shared`: an absolute path in one of `volumes` that outlives the steps:
    checkpoints lie there, and what the replicas of a training read and write. `replicas`: where None, training is one
    container, with as many GPUs as its step is given.
    """

    image: str = "localhost/marco-pipeline:latest"
    shared: str = ""
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    # Plain environment variables, such as MLFLOW_S3_ENDPOINT_URL.
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    replicas: Replicas | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
