"""The artifact type that the gate adds to TFX's own."""

from __future__ import annotations

from tfx.types import artifact


class Decision(artifact.Artifact):
    """`decision.json` (`components.gate.decision`), and the champion's `predictions.parquet` where it was compared."""

    TYPE_NAME = "components.Decision"
