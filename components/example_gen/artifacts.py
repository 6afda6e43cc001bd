"""The artifact type that ExampleGen adds to TFX's own."""

from __future__ import annotations

from tfx.types import artifact


class Quarantine(artifact.Artifact):
    """Records that failed a check: `quarantine.csv`, `counts.csv`, `summary.json`, and the records themselves."""

    TYPE_NAME = "components.Quarantine"
