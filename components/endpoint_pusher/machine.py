"""What a version is deployed on: a kind of machine, accelerators, how many of them, and as whom."""

from __future__ import annotations

import dataclasses
from typing import Any

from components.endpoint_pusher.options import Endpoint


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


def wanted(options: Endpoint) -> Machine:
    """Returns what `options` ask for."""
    return Machine(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Machine)})


def read(deployed: Any) -> Machine:
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


def kept(options: Endpoint, machine: Machine) -> Endpoint:
    """Returns `options` with a machine that is in use in place of their own, unless it is of another kind than ours."""
    return dataclasses.replace(options, **dataclasses.asdict(machine)) if machine.machine_type else options
