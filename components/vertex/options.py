"""Where in Google Cloud things are: the section `vertex` of a configuration."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, ClassVar, Literal

_PROJECT = re.compile(r"[a-z][a-z0-9.:-]*[a-z0-9]|\d+")
_LOCATION = re.compile(r"[a-z]+(-[a-z]+)+\d+")


@dataclasses.dataclass(frozen=True)
class Vertex:
    """A project of Google Cloud and a region of Vertex AI.

    `service_account`: as whom pipelines and trainings run there; empty: Compute Engine's default account. `network`: a
    VPC that they are peered with, `projects/NUMBER/global/networks/NAME`; empty: none. `accelerator`: what a GPU of
    `cluster` is there that has no name of Vertex AI's own, such as NVIDIA_TESLA_T4 or NVIDIA_L4. `api`: another address
    of the service, such as a Private Service Connect endpoint; plain `http://` is spoken without credentials.
    """

    project: str
    location: str
    service_account: str = ""
    network: str = ""
    accelerator: str = "NVIDIA_TESLA_T4"
    api: str = ""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not _PROJECT.fullmatch(self.project):
            raise ValueError(f"vertex.project {self.project!r} is none; give a project's id, such as crystals-123")
        if not _LOCATION.fullmatch(self.location):
            raise ValueError(f"vertex.location {self.location!r} is none; give a region, such as europe-west4")

    @property
    def parent(self) -> str:
        """The resource name below which all others are."""
        return f"projects/{self.project}/locations/{self.location}"


PREBUILT = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"
"""One of Vertex AI's prebuilt TensorFlow Serving containers; Google's list of them changes."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """An endpoint of Vertex AI, and how a new version takes it over.

    `name`: the endpoint's display name. `model`: that of the one model whose versions are deployed; empty: the
    configuration's `model_name`.
    """

    name: str
    model: str = ""
    # Another container or server makes another version of the model.
    container: str = PREBUILT
    # What the container is: TensorFlow Serving, or this project's own image, which then runs `marco serve`.
    server: Literal["tensorflow", "marco"] = "tensorflow"
    # As whom the container runs, where it reads anything beside its model.
    service_account: str = ""
    # What a version is deployed on; another than it has takes over from that step by step.
    machine_type: str = "n2-standard-4"
    # Vertex AI's own name, such as NVIDIA_TESLA_T4, and how many.
    accelerator: str = ""
    accelerators: int = 0
    min_replicas: int = 1
    max_replicas: int = 1
    # Per cent of the traffic that a new version is given, step by step. Where the last is not 100, it stays there until
    # `marco deploy promote`.
    traffic: tuple[int, ...] = (10, 50, 100)
    # Seconds that each step lasts before its golden images are asked for.
    soak: float = 0.0
    # Whether a new version first answers on an endpoint of its own, which nobody else asks; costs a node meanwhile.
    check_endpoint: bool = True
    # Whether the version before stays deployed without traffic: a way back within seconds, and nodes to pay.
    keep_previous: bool = False
    # A folder or gs:// URI of images with known answers, perhaps in a folder a class; empty: some of the evaluation
    # split, or drawn ones.
    golden: str = ""
    golden_images: int = 8
    # How far a deployed model's scores may be from those of the same model here.
    tolerance: float = 1e-3

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        shares = list(self.traffic)
        if not shares or shares != sorted(set(shares)) or not 1 <= shares[0] <= shares[-1] <= 100:
            raise ValueError(f"endpoint.traffic is {shares}; give rising per cents, such as [10, 50, 100]")
        if not self.name or len(self.name) > 100:
            raise ValueError(f"endpoint.name {self.name!r} has to have 1 to 100 characters")
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError(
                f"endpoint.accelerator is {self.accelerator!r} and accelerators {self.accelerators}; give both or none"
            )
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ValueError(
                f"endpoint.min_replicas {self.min_replicas}, max_replicas {self.max_replicas}: give 1 or more, rising"
            )
        if self.golden_images < 1 or self.tolerance <= 0 or self.soak < 0:
            raise ValueError(
                f"endpoint.golden_images {self.golden_images}, tolerance {self.tolerance} and soak {self.soak}: "
                "give at least one image, a tolerance above 0, and no negative time"
            )


@dataclasses.dataclass(frozen=True)
class Machine:
    """The fields of the same names of `Endpoint`; `machine_type` is empty for resources of another kind than ours."""

    machine_type: str = ""
    accelerator: str = ""
    accelerators: int = 0
    min_replicas: int = 0
    max_replicas: int = 0
    service_account: str = ""

    def __str__(self) -> str:
        told = [self.machine_type or "resources of another kind"]
        if self.accelerators:
            told.append(f"{self.accelerators} {self.accelerator}")
        if self.max_replicas > 1:
            told.append(f"{self.min_replicas} to {self.max_replicas} replicas")
        if self.service_account:
            told.append(f"as {self.service_account}")
        return ", ".join(told)

    def message(self) -> dict[str, Any]:
        """Returns the fields of a message `DeployedModel` that ask for it."""
        machine: dict[str, Any] = {"machine_type": self.machine_type}
        if self.accelerators:
            machine |= {"accelerator_type": self.accelerator, "accelerator_count": self.accelerators}
        resources = {
            "machine_spec": machine,
            "min_replica_count": self.min_replicas,
            "max_replica_count": self.max_replicas,
        }
        account = {"service_account": self.service_account} if self.service_account else {}
        return {"dedicated_resources": resources, **account}


def wanted_machine(options: Endpoint) -> Machine:
    """Returns what `options` ask for."""
    return Machine(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Machine)})


def read_machine(deployed: Any) -> Machine:
    """Returns what a message `DeployedModel` tells."""
    resources = deployed.dedicated_resources
    spec = resources.machine_spec
    kind = spec.accelerator_type
    return Machine(
        machine_type=spec.machine_type,
        # A kind that this library does not know yet is a bare number.
        accelerator=getattr(kind, "name", str(kind)) if spec.accelerator_count else "",
        accelerators=spec.accelerator_count,
        min_replicas=resources.min_replica_count,
        max_replicas=resources.max_replica_count,
        service_account=deployed.service_account,
    )


def kept_machine(options: Endpoint, machine: Machine) -> Endpoint:
    """Returns `options` with a machine that is in use in place of their own, unless it is of another kind than ours."""
    return dataclasses.replace(options, **dataclasses.asdict(machine)) if machine.machine_type else options
