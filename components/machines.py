"""The section `cluster` of a configuration: what the steps of a run on Kubernetes are given."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from marco_model.errors import InputError
from marco_model.recipe import Engine

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

    def training_replicas(self) -> Replicas:
        """Returns `replicas`; raises `InputError` where they are not set."""
        if self.replicas is None:
            raise InputError("cluster.replicas is not set; set it to train on several nodes")
        return self.replicas


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


def job_counts(engine: Engine, section: str, replicas: Replicas | Machines) -> dict[str, int]:
    """Returns how many processes each job of a training on several machines has, the chief's first.

    Jobs without a process are left out. Raises `InputError` where `engine.kind` does not fit `replicas`, which the
    configuration has as `section`.
    """
    workers, parameter_servers = replicas.workers, replicas.parameter_servers
    problem = f"engine.kind is {engine.kind} and {section} has workers {workers}, parameter_servers {parameter_servers}"
    if engine.kind not in ("multi_worker", "parameter_server"):
        raise InputError(f"{problem}; set engine.kind to multi_worker or parameter_server, or leave {section} out")
    if workers < 2:
        raise InputError(f"{problem}; give at least 2 workers, the chief among them, or leave {section} out")
    if (engine.kind == "parameter_server") != bool(parameter_servers):
        raise InputError(f"{problem}; parameter_server needs at least 1 of them, multi_worker takes none")
    counts = {"chief": 1, "worker": workers - 1, "ps": parameter_servers}
    return {job: count for job, count in counts.items() if count}


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
    counts = job_counts(engine, "machines", machines)
    container = {
        "image_uri": image,
        "command": ["marco", "train", job_file],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
    }
    machine: dict[str, Any] = {"machine_type": machines.machine_type}
    if machines.accelerators:
        machine |= {"accelerator_type": machines.accelerator, "accelerator_count": machines.accelerators}
    plain = {"machine_type": machines.parameter_server_machine_type}
    spec: dict[str, Any] = {
        "worker_pool_specs": [
            {"replica_count": count, "machine_spec": plain if job == "ps" else machine, "container_spec": container}
            for job, count in counts.items()
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


DATA_STEP = "Data"
STEPS = (
    DATA_STEP,
    "MarcoExampleGen",
    "StatisticsGen",
    "CuratedSchema",
    "ExampleValidator",
    "Transform",
    "Tuner",
    "Trainer",
    "Evaluator",
    "ChampionGate",
    "Report",
    "Pusher",
    "EndpointPusher",
)


# AWS_SECRET_ACCESS_KEY, but neither AWS_ACCESS_KEY_ID nor TOKEN_FILE.
_SECRET_NAME = re.compile(r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS|API_KEY|ACCESS_KEY)$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Cluster(Placement):
    """`Placement`, and the resources of each step: those of `steps` by its name, otherwise `default`.

    `retries`: how often a step that fails is run again; training goes on from its last checkpoint.
    """

    default: Resources = dataclasses.field(default_factory=Resources)
    steps: dict[str, Resources] = dataclasses.field(default_factory=dict)
    retries: int = 2

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        unknown = sorted(set(self.steps) - set(STEPS))
        if unknown:
            raise ValueError(f"cluster.steps names {', '.join(unknown)}; the steps are {', '.join(STEPS)}")
        if self.retries < 0:
            raise ValueError(f"cluster.retries is {self.retries}; give 0 or more")
        if self.shared:
            _check_shared(self.shared, self.volumes)
        for name, value in self.environment.items():
            if _SECRET_NAME.search(name) and not value.startswith("/"):
                raise ValueError(f"cluster.environment has {name}, whose value anybody could read; use cluster.secrets")
        if self.replicas and not self.shared:
            raise ValueError("cluster.replicas need cluster.shared, a folder on a volume that all of them mount")

    def resources(self, step: str) -> Resources:
        """Returns what a step is given."""
        return self.steps.get(step, self.default)

    def placement(self) -> Placement:
        """Returns the fields of `Placement`."""
        return Placement(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Placement)})


def _check_shared(shared: str, volumes: tuple[Volume, ...]) -> None:
    around = [volume for volume in volumes if _within(shared, volume.path)]
    if not around:
        raise ValueError(f"cluster.shared {shared} lies in none of cluster.volumes; mount one there")
    # Mounts may be nested.
    innermost = max(around, key=lambda volume: len(volume.path.rstrip("/")))
    if innermost.read_only:
        raise ValueError(
            f"cluster.shared {shared} lies in the claim {innermost.claim}, which is read_only, and steps and replicas "
            "write there; leave read_only out, or name a folder on another volume"
        )


def _within(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
