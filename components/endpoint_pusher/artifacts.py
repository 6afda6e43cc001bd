"""The artifact type that the EndpointPusher adds to TFX's own."""

from __future__ import annotations

from tfx.types import artifact


class Deployment(artifact.Artifact):
    """`deployment.json`: what `components.endpoint_pusher.pushing.Deployment.record` says, or `deployed` false."""

    TYPE_NAME = "components.Deployment"
