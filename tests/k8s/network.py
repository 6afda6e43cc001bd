"""Which connections the NetworkPolicies allow, as the Kubernetes API defines them: ours, and Kubeflow's own."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from pathlib import Path
from typing import Any

import yaml

Item = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Peer:
    """A pod, by its labels and its namespace; with `address`, a host that is not a pod."""

    labels: tuple[tuple[str, str], ...] = ()
    namespace: str = "marco"
    namespace_labels: tuple[tuple[str, str], ...] = ()
    address: str = ""


@functools.cache
def kubeflow() -> Item:
    """Returns what Kubeflow puts around a run (upstream/kubeflow.yaml)."""
    return yaml.safe_load((Path(__file__).parent / "upstream" / "kubeflow.yaml").read_text())


def namespace_labels(objects: list[Item]) -> dict[str, str]:
    """Returns the labels of `marco`: what is applied wins, the profile controller only adds what is missing."""
    labels = [item["metadata"].get("labels", {}) for item in objects if item["kind"] == "Namespace"]
    return {**kubeflow()["profile_labels"], **(labels[0] if labels else {})}


def matches(selector: Item, labels: dict[str, str]) -> bool:
    """Returns whether a label selector matches these labels."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        _expression(part, labels) for part in selector.get("matchExpressions", [])
    )


def _expression(part: Item, labels: dict[str, str]) -> bool:
    value, values = labels.get(part["key"]), part.get("values", [])
    return {
        "Exists": value is not None,
        "DoesNotExist": value is None,
        "In": value in values,
        "NotIn": value not in values,
    }[part["operator"]]


def allowed(objects: list[Item], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Returns whether a connection may leave its source and enter its target at this port of the target's pod.

    A namespace without policies lets everything in and out, as Kubernetes does.
    """
    marco = namespace_labels(objects)
    return _passes(objects, source, target, "Egress", port, protocol, marco) and _passes(
        objects, target, source, "Ingress", port, protocol, marco
    )


def _passes(
    objects: list[Item], pod: Peer, other: Peer, direction: str, port: int, protocol: str, marco: dict[str, str]
) -> bool:
    if pod.address:
        return True
    specs = [
        item["spec"]
        for item in [*objects, *kubeflow()["policies"]]
        if item["kind"] == "NetworkPolicy"
        and item["metadata"].get("namespace") == pod.namespace
        and direction in item["spec"]["policyTypes"]
        and matches(item["spec"]["podSelector"], dict(pod.labels))
    ]
    side = "to" if direction == "Egress" else "from"
    return not specs or any(
        _takes(rule, side, pod, other, port, protocol, marco)
        for spec in specs
        for rule in spec.get(direction.lower(), [])
    )


def _takes(rule: Item, side: str, pod: Peer, other: Peer, port: int, protocol: str, marco: dict[str, str]) -> bool:
    ports = rule.get("ports", [])
    peers = rule.get(side, [])
    return (not ports or any((p.get("protocol", "TCP"), p["port"]) == (protocol, port) for p in ports)) and (
        not peers or any(_is(peer, pod, other, marco) for peer in peers)
    )


def _is(peer: Item, pod: Peer, other: Peer, marco: dict[str, str]) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        address = ipaddress.ip_address(other.address) if other.address else None
        return address in ipaddress.ip_network(block["cidr"]) if address else False
    if other.address:
        return False
    labels = {
        "kubernetes.io/metadata.name": other.namespace,
        **(marco if other.namespace == "marco" else {}),
        **dict(other.namespace_labels),
    }
    inside = (
        matches(peer["namespaceSelector"], labels) if "namespaceSelector" in peer else other.namespace == pod.namespace
    )
    return inside and matches(peer.get("podSelector", {}), dict(other.labels))
