"""Where a pipeline runs that is not run here."""

from __future__ import annotations

from enum import Enum


class Target(str, Enum):
    """Where a package runs."""

    kubeflow = "kubeflow"
    vertex = "vertex"
