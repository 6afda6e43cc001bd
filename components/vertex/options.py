"""Where in Google Cloud things are: the section `vertex` of a configuration."""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

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
