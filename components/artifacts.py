"""The artifact type that the gate adds to TFX's own."""

from __future__ import annotations

from tfx.types import artifact


class Decision(artifact.Artifact):
    """`decision.json` (`components.gate`), and the champion's `predictions.parquet` where it was compared."""

    TYPE_NAME = "components.Decision"


class Quarantine(artifact.Artifact):
    """Records that failed a check: `quarantine.csv`, `counts.csv`, `summary.json`, and the records themselves."""

    TYPE_NAME = "components.Quarantine"


class Report(artifact.Artifact):
    """`report.html` by itself, `report.json` with every number of it, and `figures/*.svg`."""

    TYPE_NAME = "components.Report"


class Deployment(artifact.Artifact):
    """`deployment.json`: what `components.vertex.rollout.Deployment.record` says, or `deployed` false."""

    TYPE_NAME = "components.Deployment"
