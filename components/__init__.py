"""The parts of the pipeline: `steps` are what it runs; everything else here is what the steps are made of.

In a container TFX imports an artifact type by its `TYPE_NAME`, in which its compiler allows a single dot. So the types
of `components.artifacts` are called `components.Decision` and so on, and this package finds them under that name.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """Returns the artifact type `components.NAME`; TFX is imported only then."""
    if name[:1].isupper():
        artifact_type = getattr(importlib.import_module("components.artifacts"), name, None)
        if getattr(artifact_type, "TYPE_NAME", None) == f"{__name__}.{name}":
            return artifact_type
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
