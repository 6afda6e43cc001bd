"""The artifact types that this pipeline adds to TFX's own. Each is called by the path that it is imported from.

TFX writes an artifact's `TYPE_NAME` into a compiled package and imports the class by it in each container. The name may
have a single dot, so the package `components` finds these classes for it: a class here needs no entry anywhere else.
"""

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
