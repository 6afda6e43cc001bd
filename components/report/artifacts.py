"""The artifact type that the report adds to TFX's own."""

from __future__ import annotations

from tfx.types import artifact


class Report(artifact.Artifact):
    """`report.html` by itself, `report.json` with every number of it, and `figures/*.svg`."""

    TYPE_NAME = "components.Report"
