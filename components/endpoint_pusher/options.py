"""How a model is served on Vertex AI: the section `endpoint` of a configuration."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

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
