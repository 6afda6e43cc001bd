"""What the containers of a run on a cluster are given: the sections `cluster` and `machines` of a configuration."""

import re
from typing import Annotated, Literal

import pydantic

from components.settings import Section
from marco_model import errors, recipe

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?")
_BYTES = {None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
# AWS_SECRET_ACCESS_KEY, but neither AWS_ACCESS_KEY_ID nor TOKEN_FILE.
_SECRET_NAME = re.compile(r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS|API_KEY|ACCESS_KEY)$", re.IGNORECASE)


def quantity_bytes(quantity: str) -> int:
    """Returns the bytes of a Kubernetes quantity such as `8Gi`; raises `ValueError` if it is not one."""
    match = _QUANTITY.fullmatch(quantity)
    if not match:
        raise ValueError(f"{quantity!r} is not a quantity of memory; write it as 8Gi or 500M")
    return round(float(match[1]) * _BYTES[match[2]])


def _check_quantity(quantity: str) -> str:
    if quantity:
        quantity_bytes(quantity)
    return quantity


Quantity = Annotated[str, pydantic.AfterValidator(_check_quantity)]
Count = Annotated[int, pydantic.Field(ge=0)]


class Toleration(Section):
    """A taint that a pod tolerates, in Kubernetes' own terms."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class Resources(Section):
    """What one container gets, as request and limit alike."""

    # Cores.
    cpu: float = pydantic.Field(2, gt=0)
    # A Kubernetes quantity.
    memory: Annotated[Quantity, pydantic.Field(min_length=1)] = "8Gi"
    # GPUs, and what the cluster calls them.
    accelerators: Count = 0
    accelerator: str = "nvidia.com/gpu"
    # Size of /dev/shm, a Kubernetes quantity; empty leaves the container runtime's 64 MiB.
    shared_memory: Quantity = ""
    node_selector: dict[str, str] = pydantic.Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


class Volume(Section):
    """A PersistentVolumeClaim, mounted at `path`."""

    claim: str
    path: str
    # Only for the replicas of a training: packages of Kubeflow Pipelines know no such mount, so steps may write. If
    # nobody may write, the claim itself must refuse it (access mode ReadOnlyMany).
    read_only: bool = False


class Secret(Section):
    """A Secret of the namespace: `variables` maps an environment variable to a key of it, `path` mounts it whole."""

    name: str
    variables: dict[str, str] = pydantic.Field(default_factory=dict)
    path: str = ""


class Replicas(Section):
    """A training on several nodes: the processes of its JobSet beside the Trainer step.

    `workers` counts all that train, the chief among them, each with the resources `worker`; `parameter_servers` are
    those of `engine.kind` `parameter_server`. `restarts`: how often the whole set starts again from its last checkpoint
    before the step fails, not counted after a pod that is preempted or drained. `priority_class`: theirs, a
    PriorityClass of the cluster; k8s/ sets up `marco-training`.
    """

    workers: int = pydantic.Field(2, ge=1)
    parameter_servers: Count = 0
    worker: Resources = Resources()
    parameter_server: Resources = Resources()
    restarts: Count = 0
    service_account: str = "marco-training"
    priority_class: str = ""


class Placement(Section):
    """What every container of a run on Kubernetes shares.

    `image`: this project's, best by digest. `shared`: an absolute path in one of `volumes` that outlives the steps:
    checkpoints are there, and what the replicas of a training read and write. `replicas`: if None, training is one
    container, with as many GPUs as its step is given.
    """

    image: str = "localhost/marco-pipeline:latest"
    shared: str = ""
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    # Plain environment variables, such as MLFLOW_S3_ENDPOINT_URL.
    environment: dict[str, str] = pydantic.Field(default_factory=dict)
    replicas: Replicas | None = None

    def training_replicas(self) -> Replicas:
        """Returns `replicas`; raises `InputError` if they are not set."""
        if self.replicas is None:
            raise errors.InputError("cluster.replicas is not set; set it to train on several nodes")
        return self.replicas


DATA_STEP = "Data"
STEPS = (
    DATA_STEP,
    "MarcoExampleGen",
    "StatisticsGen",
    "CuratedSchema",
    "ExampleValidator",
    "Transform",
    "Materializer",
    "Tuner",
    "Trainer",
    "Evaluator",
    "ChampionGate",
    "Report",
    "Pusher",
    "EndpointPusher",
    "Sources",
    "LeaveOneOut",
)
COPY = "-"
"""Separates the name of a step from the number of a copy of it, such as `Trainer-1-CSIRO`."""


class Cluster(Placement):
    """`Placement`, and the resources of each step: those of `steps` by its name, otherwise `default`.

    `retries`: how often a step that fails is run again; training continues from its last checkpoint.
    """

    default: Resources = Resources()
    steps: dict[str, Resources] = pydantic.Field(default_factory=dict)
    retries: Count = 2

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "Cluster":
        unknown = sorted(set(self.steps) - set(STEPS))
        if unknown:
            raise ValueError(f"cluster.steps names {', '.join(unknown)}; the steps are {', '.join(STEPS)}")
        if self.shared:
            _check_shared(self.shared, self.volumes)
        for name, value in self.environment.items():
            if _SECRET_NAME.search(name) and not value.startswith("/"):
                raise ValueError(f"cluster.environment has {name}, whose value anybody could read; use cluster.secrets")
        if self.replicas and not self.shared:
            raise ValueError("cluster.replicas need cluster.shared, a folder on a volume that all of them mount")
        return self

    def resources(self, step: str) -> Resources:
        """Returns what a step, or a copy of it, is given."""
        return self.steps.get(step.partition(COPY)[0], self.default)


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


class Machines(Section):
    """The machines of a training on Vertex AI: `workers` counts all that train, the chief among them.

    `parameter_servers` are those of `engine.kind` `parameter_server`. Types of machines and accelerators are Vertex
    AI's own, such as n1-standard-16 and NVIDIA_TESLA_T4.
    """

    workers: int = pydantic.Field(2, ge=2)
    parameter_servers: Count = 0
    machine_type: str = "n1-standard-16"
    accelerator: str = ""
    accelerators: Count = 0
    parameter_server_machine_type: str = "n1-highmem-8"
    # Hours after which Vertex AI ends the job, so that one that nobody follows any more does not cost money forever.
    hours: float = pydantic.Field(168.0, gt=0)

    @pydantic.model_validator(mode="after")
    def _accelerators_have_a_type(self) -> "Machines":
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError(
                f"machines has accelerator {self.accelerator!r} and accelerators {self.accelerators}; give both"
            )
        return self


def job_counts(engine: recipe.Engine, section: str, replicas: Replicas | Machines) -> dict[str, int]:
    """Returns how many processes each job of a training on several machines has, the chief's first.

    Jobs without a process are left out. Raises `InputError` if `engine.kind` does not fit `replicas`, which the
    configuration has as `section`.
    """
    workers, parameter_servers = replicas.workers, replicas.parameter_servers
    problem = f"engine.kind is {engine.kind} and {section} has workers {workers}, parameter_servers {parameter_servers}"
    if engine.kind not in ("multi_worker", "parameter_server"):
        raise errors.InputError(
            f"{problem}; set engine.kind to multi_worker or parameter_server, or leave {section} out"
        )
    if workers < 2:
        raise errors.InputError(f"{problem}; give at least 2 workers, the chief among them, or leave {section} out")
    if (engine.kind == "parameter_server") != bool(parameter_servers):
        raise errors.InputError(f"{problem}; parameter_server needs at least 1 of them, multi_worker takes none")
    counts = {"chief": 1, "worker": workers - 1, "ps": parameter_servers}
    return {job: count for job, count in counts.items() if count}
