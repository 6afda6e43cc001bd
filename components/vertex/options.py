"""The sections `vertex` and `endpoint` of a configuration, and the machine of a deployed model."""

import dataclasses
import re
from typing import Annotated, Any, Literal

import pydantic

from components.settings import Section


class Vertex(Section):
    """A project of Google Cloud and a region of Vertex AI.

    `service_account`: the account that pipelines and trainings run as; empty: Compute Engine's default account.
    `network`: a VPC to peer with, `projects/NUMBER/global/networks/NAME`; empty: none. `accelerator`: the Vertex AI
    type, such as NVIDIA_TESLA_T4 or NVIDIA_L4, for a GPU of `cluster` without a Vertex AI name. `api`: another address
    of the service, such as a Private Service Connect endpoint; plain `http://` is used without credentials.
    """

    project: str
    location: str
    service_account: str = ""
    network: str = ""
    accelerator: str = "NVIDIA_TESLA_T4"
    api: str = ""

    @pydantic.model_validator(mode="after")
    def _is_somewhere(self) -> "Vertex":
        if not re.fullmatch(r"[a-z][a-z0-9.:-]*[a-z0-9]|\d+", self.project):
            raise ValueError(f"vertex.project {self.project!r} is not a project ID; give one such as crystals-123")
        if not re.fullmatch(r"[a-z]+(-[a-z]+)+\d+", self.location):
            raise ValueError(f"vertex.location {self.location!r} is not a region; give one such as europe-west4")
        return self

    @property
    def parent(self) -> str:
        """The resource name that all others start with."""
        return f"projects/{self.project}/locations/{self.location}"


PREBUILT = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"
"""One of Vertex AI's prebuilt TensorFlow Serving containers; Google's list of them changes."""


class Endpoint(Section):
    """An endpoint of Vertex AI, and how a new version takes over its traffic.

    `name`: the endpoint's display name. `model`: the display name of the model whose versions are deployed; empty: the
    configuration's `model_name`.
    """

    name: str = pydantic.Field(min_length=1, max_length=100)
    model: str = ""
    # A change of container or server makes a new version of the model.
    container: str = PREBUILT
    # What the container is: TensorFlow Serving, or this project's own image, which then runs `marco serve`.
    server: Literal["tensorflow", "marco"] = "tensorflow"
    # The account the container runs as, if it reads anything besides its model.
    service_account: str = ""
    # The machine of a deployed version; a new machine takes over from the old one step by step.
    machine_type: str = "n2-standard-4"
    # A Vertex AI accelerator type, such as NVIDIA_TESLA_T4, and the count per machine.
    accelerator: str = ""
    accelerators: int = pydantic.Field(0, ge=0)
    min_replicas: int = pydantic.Field(1, ge=1)
    max_replicas: int = 1
    # Per cent of the traffic for a new version, step by step. If the last is not 100, it stays there until
    # `marco deploy promote`.
    traffic: tuple[Annotated[int, pydantic.Field(ge=1, le=100)], ...] = (10, 50, 100)
    # Seconds to wait in each step before the golden images are checked.
    soak: float = pydantic.Field(0.0, ge=0)
    # Whether a new version is first checked on a private endpoint; costs a node for that time.
    check_endpoint: bool = True
    # Whether the previous version stays deployed without traffic: rollback takes seconds, but its nodes cost.
    keep_previous: bool = False
    # A folder or gs:// URI of images with known answers, optionally one folder per class; empty: images of the
    # evaluation split, or synthetic ones.
    golden: str = ""
    golden_images: int = pydantic.Field(8, ge=1)
    # Largest accepted difference between a score of the deployed model and of the same model run locally.
    tolerance: float = pydantic.Field(1e-3, gt=0)

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "Endpoint":
        shares = list(self.traffic)
        if not shares or shares != sorted(set(shares)):
            raise ValueError(f"endpoint.traffic is {shares}; give increasing percentages, such as [10, 50, 100]")
        if bool(self.accelerator) != bool(self.accelerators):
            raise ValueError(
                f"endpoint.accelerator is {self.accelerator!r} and accelerators {self.accelerators}; give both or none"
            )
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"endpoint.min_replicas {self.min_replicas}, max_replicas {self.max_replicas}: "
                "give max_replicas at least min_replicas"
            )
        return self

    @property
    def machine(self) -> "Machine":
        """The machine of a new deployment."""
        return Machine(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Machine)})

    def kept_on(self, machine: "Machine") -> "Endpoint":
        """Returns these options with the machine in use, or unchanged if that has no dedicated resources."""
        return self.model_copy(update=dataclasses.asdict(machine)) if machine.machine_type else self


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine of a deployed model, with `Endpoint`'s field names; no `machine_type`: not dedicated resources."""

    machine_type: str = ""
    accelerator: str = ""
    accelerators: int = 0
    min_replicas: int = 0
    max_replicas: int = 0
    service_account: str = ""

    def __str__(self) -> str:
        parts = [self.machine_type or "resources of another kind"]
        if self.accelerators:
            parts.append(f"{self.accelerators} {self.accelerator}")
        if self.max_replicas > 1:
            parts.append(f"{self.min_replicas} to {self.max_replicas} replicas")
        if self.service_account:
            parts.append(f"as {self.service_account}")
        return ", ".join(parts)

    def spec(self) -> dict[str, Any]:
        """Returns the fields of a message `MachineSpec`."""
        spec: dict[str, Any] = {"machine_type": self.machine_type}
        if self.accelerators:
            spec |= {"accelerator_type": self.accelerator, "accelerator_count": self.accelerators}
        return spec

    def message(self) -> dict[str, Any]:
        """Returns the fields of a message `DeployedModel` that request this machine."""
        resources = {
            "machine_spec": self.spec(),
            "min_replica_count": self.min_replicas,
            "max_replica_count": self.max_replicas,
        }
        account = {"service_account": self.service_account} if self.service_account else {}
        return {"dedicated_resources": resources, **account}


def read_machine(deployed: Any) -> Machine:
    """Returns the machine that a message `DeployedModel` describes."""
    resources = deployed.dedicated_resources
    spec = resources.machine_spec
    kind = spec.accelerator_type
    return Machine(
        machine_type=spec.machine_type,
        # The library returns a bare number for a type that it does not know yet.
        accelerator=getattr(kind, "name", str(kind)) if spec.accelerator_count else "",
        accelerators=spec.accelerator_count,
        min_replicas=resources.min_replica_count,
        max_replicas=resources.max_replica_count,
        service_account=deployed.service_account,
    )
