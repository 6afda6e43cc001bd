"""Which connections the NetworkPolicies allow: ours, and Kubeflow's own."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from pipelines.cluster_check.network import Network, Peer

Item = dict[str, Any]
# A namespace of the cluster that is let in to the model server.
CLIENTS = {"lab": {"marco-predictions": "allowed"}}


@functools.cache
def kubeflow() -> Item:
    """Returns what Kubeflow puts around a run (upstream/kubeflow.yaml)."""
    return yaml.safe_load((Path(__file__).parent / "upstream" / "kubeflow.yaml").read_text())


def namespace_labels(objects: list[Item]) -> dict[str, str]:
    """Returns the labels of `marco`: what is applied wins, the profile controller only adds what is missing."""
    labels = [item["metadata"].get("labels", {}) for item in objects if item["kind"] == "Namespace"]
    return {**kubeflow()["profile_labels"], **(labels[0] if labels else {})}


def allowed(objects: list[Item], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Returns whether a connection may leave its source and enter its target at this port of the target's pod."""
    policies = [item for item in [*objects, *kubeflow()["policies"]] if item["kind"] == "NetworkPolicy"]
    network = Network(policies, {"marco": namespace_labels(objects), **CLIENTS})
    return not network.closed(source, target, port, protocol)
