"""TFX components, one folder each; every one rests on a plain function that can be tested without a pipeline.

Artifact types of our own are found here by name: on Kubeflow TFX takes a type's name for the path to import it from,
and allows but one dot in it.
"""

from __future__ import annotations

import importlib
from typing import Any

_ARTIFACTS = {
    "Decision": "components.artifacts",
    "Deployment": "components.artifacts",
    "Quarantine": "components.artifacts",
    "Report": "components.artifacts",
}


def __getattr__(name: str) -> Any:
    if name in _ARTIFACTS:
        return getattr(importlib.import_module(_ARTIFACTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
