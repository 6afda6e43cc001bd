"""The section `cluster` of a configuration: what the steps of a run on Kubernetes are given."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, ClassVar

from components.cluster.options import Placement, Resources, Volume

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

    def placement(self) -> dict[str, Any]:
        """Returns the fields of `Placement`, ready for JSON."""
        return dataclasses.asdict(
            Placement(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Placement)})
        )


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
