"""Which connections the NetworkPolicies allow, as the Kubernetes API defines them."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

Item = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Peer:
    """A pod, by its labels and its namespace; with `address`, a host outside the cluster."""

    labels: tuple[tuple[str, str], ...] = ()
    namespace: str = "marco"
    namespace_labels: tuple[tuple[str, str], ...] = ()
    address: str = ""


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
    """Returns whether a connection may leave its source and enter its target; other namespaces allow everything."""
    return _passes(objects, source, target, "Egress", port, protocol) and _passes(
        objects, target, source, "Ingress", port, protocol
    )


def _passes(objects: list[Item], pod: Peer, other: Peer, direction: str, port: int, protocol: str) -> bool:
    if pod.address or pod.namespace != "marco":
        return True
    specs = [
        item["spec"]
        for item in objects
        if item["kind"] == "NetworkPolicy"
        and direction in item["spec"]["policyTypes"]
        and matches(item["spec"]["podSelector"], dict(pod.labels))
    ]
    side = "to" if direction == "Egress" else "from"
    return not specs or any(
        _takes(rule, side, other, port, protocol) for spec in specs for rule in spec.get(direction.lower(), [])
    )


def _takes(rule: Item, side: str, other: Peer, port: int, protocol: str) -> bool:
    ports = rule.get("ports", [])
    peers = rule.get(side, [])
    return (not ports or any((p.get("protocol", "TCP"), p["port"]) == (protocol, port) for p in ports)) and (
        not peers or any(_is(peer, other) for peer in peers)
    )


def _is(peer: Item, other: Peer) -> bool:
    if "ipBlock" in peer:
        return bool(other.address) and ipaddress.ip_address(other.address) in ipaddress.ip_network(
            peer["ipBlock"]["cidr"]
        )
    if other.address:
        return False
    namespace = {"kubernetes.io/metadata.name": other.namespace, **dict(other.namespace_labels)}
    inside = (
        matches(peer["namespaceSelector"], namespace) if "namespaceSelector" in peer else other.namespace == "marco"
    )
    return inside and matches(peer.get("podSelector", {}), dict(other.labels))
