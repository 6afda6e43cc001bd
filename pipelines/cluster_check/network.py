"""Which connections NetworkPolicies let through, as the Kubernetes API defines them, and those that a run needs."""

import dataclasses
import ipaddress
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipelines.cluster_check.kubernetes_api import KUBEFLOW, Api
from pipelines.cluster_check.needs import FINE, UNSEEN, WRONG, HiddenError, Lines, Needs, Object

PROFILE = {"app.kubernetes.io/part-of": "kubeflow-profile"}
STEP, REPLICA = "workflows.argoproj.io/workflow", "jobset.sigs.k8s.io/jobset-name"
# Where gs:// answers: any of Google's addresses, or those of restricted.googleapis.com and private.googleapis.com
# (cloud.google.com/vpc/docs/configure-private-google-access).
GOOGLE = ("142.250.0.1", "199.36.153.4", "199.36.153.8")
METADATA = (("169.254.169.252", 988), ("169.254.169.254", 80))
NODE_CACHE, CLOUD_DNS = "169.254.20.10", "169.254.169.254"
_APPLY = "allow it in your overlay (k8s/base/network.yaml), kubectl apply -k k8s/overlays/…"


@dataclasses.dataclass(frozen=True)
class Peer:
    """A pod, by its labels, its namespace and the names of its ports; with `address`, a host that is not a pod."""

    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    namespace: str = "marco"
    address: str = ""
    ports: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Network:
    """The NetworkPolicies of a cluster, and the labels of its namespaces."""

    policies: Sequence[Object]
    namespace_labels: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def closed(self, source: Peer, target: Peer, port: int, protocol: str = "TCP") -> str:
        """Returns which side stops a connection to this port of the target's pod, such as "egress of marco", or ""."""
        if not self._passes(source, target, "Egress", port, protocol, target):
            return f"egress of {source.namespace}"
        if not self._passes(target, source, "Ingress", port, protocol, target):
            return f"ingress of {target.namespace}"
        return ""

    def _passes(self, pod: Peer, other: Peer, direction: str, port: int, protocol: str, target: Peer) -> bool:
        """Returns whether one side's policies let a connection through; a pod that no policy selects takes all."""
        if pod.address:
            return True
        specs = [
            policy["spec"]
            for policy in self.policies
            if policy["metadata"].get("namespace") == pod.namespace
            and direction in _directions(policy["spec"])
            and matches(policy["spec"].get("podSelector") or {}, pod.labels)
        ]
        side = "to" if direction == "Egress" else "from"
        return not specs or any(
            any(_is_port(item, port, protocol, target) for item in rule.get("ports") or [{"protocol": protocol}])
            and (not rule.get(side) or any(self._is(peer, pod, other) for peer in rule[side]))
            for spec in specs
            for rule in spec.get(direction.lower()) or []
        )

    def _is(self, peer: Object, pod: Peer, other: Peer) -> bool:
        """Returns whether a rule of `pod` names the other side. A block of addresses names no pod: plugins differ."""
        if "ipBlock" in peer:
            blocks = [peer["ipBlock"]["cidr"], *(peer["ipBlock"].get("except") or [])]
            first, *exceptions = (_within(other.address, block) for block in blocks)
            return first and not any(exceptions)
        if other.address:
            return False
        labels = {"kubernetes.io/metadata.name": other.namespace, **self.namespace_labels.get(other.namespace, {})}
        selector = peer.get("namespaceSelector")
        inside = other.namespace == pod.namespace if selector is None else matches(selector, labels)
        return inside and matches(peer.get("podSelector") or {}, other.labels)


def _directions(spec: Object) -> list[str]:
    return list(spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])])


def _is_port(item: Object, port: int, protocol: str, target: Peer) -> bool:
    if item.get("protocol", "TCP") != protocol:
        return False
    first = item.get("port", port)
    number = target.ports.get(first, -1) if isinstance(first, str) else int(first)
    return number <= port <= int(item.get("endPort", number))


def _within(address: str, block: str) -> bool:
    return bool(address) and ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False)


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Returns whether a label selector matches these labels."""
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
        _matches_expression(part, labels) for part in selector.get("matchExpressions") or []
    )


def _matches_expression(part: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(part["key"]), part.get("values") or []
    return {
        "Exists": value is not None,
        "DoesNotExist": value is None,
        "In": value in values,
        "NotIn": value not in values,
    }[str(part["operator"])]


class Connection(NamedTuple):
    """A connection that a run needs: `goal` says of what to what, and what for; `port` is that of the target's pod."""

    goal: str
    source: Peer
    target: Peer
    port: int
    protocol: str = "TCP"


def own_service(uri: str, namespace: str) -> str:
    """Returns the name of the Service of this namespace that a URL leads to, "" if it leads elsewhere."""
    name, _, rest = (urllib.parse.urlsplit(uri).hostname or "").partition(".")
    return name if uri.startswith("http") and (not rest or rest.split(".")[0] == namespace) else ""


def policies(api: Api, needs: Needs) -> Lines:
    """Says which connections of a run NetworkPolicies stop."""
    network, unseen = _read(api)
    if unseen:
        yield UNSEEN, f"the NetworkPolicies of {', '.join(unseen)}; what they let in is not known"
    connections = list(_connections(api, needs))
    closed = [(item, side) for item in connections if (side := network.closed(*item[1:]))]
    for connection, side in closed:
        yield WRONG, f"{connection.goal}, port {connection.port}, is stopped by the {side}; {_APPLY}"
    if not closed:
        yield FINE, f"they let the run's {len(connections)} connections through"
    yield from _cilium(api)


def _read(api: Api) -> tuple[Network, list[str]]:
    """Returns the policies of all namespaces that a run's connections touch, and those that may not be read.

    The runs' namespace counts as a profile's: where its label is another, the line about the namespace says so.
    """
    found: list[Object] = []
    labels, unseen = {}, []
    for namespace in (api.namespace, KUBEFLOW, "kube-system", "openshift-dns"):
        try:
            listed = api.items(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
            found += [{**item, "metadata": {**item["metadata"], "namespace": namespace}} for item in listed]
            metadata = (api.get(f"/api/v1/namespaces/{namespace}") or {}).get("metadata", {})
            labels[namespace] = {**(metadata.get("labels") or {}), **(PROFILE if namespace == api.namespace else {})}
        except HiddenError:
            unseen.append(namespace)
    return Network(found, labels), unseen


def _connections(api: Api, needs: Needs) -> Iterator[Connection]:
    """Yields what a run connects to, of that which the API shows."""
    step = Peer({STEP: "marco", "app.kubernetes.io/part-of": "marco"}, api.namespace)
    replica = Peer({REPLICA: "marco"}, api.namespace)
    clients = {"steps": step, **({"replicas": replica} if needs.replicas else {})}
    if needs.replicas:
        for port in (2222, 40000):
            yield Connection("replicas to each other", replica, replica, port)
    services = [("metadata-grpc-service", 8080, "their metadata"), ("ml-pipeline", 8887, "their cache")]
    if needs.root.partition(":")[0] in ("", "minio", "s3"):
        services += [(name, 9000, "their artifacts") for name in ("seaweedfs", "minio-service")]
    for name, port, goal in services:
        for target, number in _service(api, KUBEFLOW, name, port):
            yield Connection(f"steps to {name} of {KUBEFLOW}, {goal}", step, target, number)
    if name := own_service(needs.tracking, api.namespace):
        port = urllib.parse.urlsplit(needs.tracking).port or 80
        for target, number in _service(api, api.namespace, name, port):
            for who, client in clients.items():
                yield Connection(f"{who} to MLflow", client, target, number)
    for subset in (api.own("endpoints/kubernetes", "default") or {}).get("subsets") or []:
        for address in subset.get("addresses") or []:
            peer = Peer(address=address["ip"])
            yield Connection(f"steps to the Kubernetes API at {address['ip']}", step, peer, subset["ports"][0]["port"])
    if needs.buckets:
        yield from _google(api, clients)


def _google(api: Api, clients: dict[str, Peer]) -> Iterator[Connection]:
    network, _ = _read(api)
    for who, client in clients.items():
        open_to = [address for address in GOOGLE if not network.closed(client, Peer(address=address), 443)]
        yield Connection(f"{who} to gs://", client, Peer(address=(open_to or GOOGLE)[0]), 443)
        for address, port in METADATA if _on_google(api) else ():
            yield Connection(f"{who} to the metadata server {address}", client, Peer(address=address), port)


def _on_google(api: Api) -> bool:
    nodes = api.items("/api/v1/nodes", hidden_as_empty=True)
    return any(map(is_of_google, nodes))


def is_of_google(node: Object) -> bool:
    """Returns whether a node is one of Google Kubernetes Engine."""
    return str(node["spec"].get("providerID", "")).startswith("gce://")


def _service(api: Api, namespace: str, name: str, port: int) -> Iterator[tuple[Peer, int]]:
    """Yields the pod behind a port of a Service, with its own port; nothing where there is none."""
    spec = (api.own(f"services/{name}", namespace) or {}).get("spec", {})
    target = next((item.get("targetPort", port) for item in spec.get("ports") or [] if item["port"] == port), None)
    if target is None or not spec.get("selector"):
        return
    for pod in api.items(f"/api/v1/namespaces/{namespace}/pods"):
        labels = pod["metadata"].get("labels") or {}
        if matches({"matchLabels": spec["selector"]}, labels):
            declared = [item for container in pod["spec"]["containers"] for item in container.get("ports") or []]
            ports = {item["name"]: item["containerPort"] for item in declared if "name" in item}
            yield Peer(labels, namespace, ports=ports), ports.get(target, -1) if isinstance(target, str) else target
            return


def dns(api: Api, needs: Needs) -> Lines:
    """Says whether the cluster's DNS server runs, and whether steps may ask it and what stands in for it on nodes."""
    network, _ = _read(api)
    step = Peer({STEP: "marco"}, api.namespace)
    google = _on_google(api)
    servers = (("kube-system", "kube-dns"), ("openshift-dns", "dns-default"))
    place = next(((space, name) for space, name in servers if api.own(f"services/{name}", space)), None)
    pods = list(_service(api, *place, 53)) if place else []
    if place and not pods and not google:
        look = f"see kubectl --namespace {place[0]} get pods"
        yield WRONG, f"{place[1]} of {place[0]} has no pod, so that no name is resolved; {look}"
    targets = [(f"{place[1]} of {place[0]}", pod, port) for pod, port in pods] if place else []
    if api.get("/apis/apps/v1/namespaces/kube-system/daemonsets/node-local-dns") is not None:
        targets.append(("the cache on each node", Peer(address=NODE_CACHE), 53))
    if google:
        targets.append(("Cloud DNS", Peer(address=CLOUD_DNS), 53))
    if not targets and not place:
        yield UNSEEN, "there is no Service kube-dns; --inside says which server pods ask, and whether it answers"
    for name, target, port in targets:
        side = next(filter(None, (network.closed(step, target, port, kind) for kind in ("UDP", "TCP"))), "")
        stopped = f"steps to {name}, port {port}, is stopped by the {side}; {_APPLY}"
        yield (WRONG, stopped) if side else (FINE, f"steps may ask {name}")


def _cilium(api: Api) -> Lines:
    """Says whether Cilium takes a node's address, which the Kubernetes API often has, for one of a block."""
    config = api.own("configmaps/cilium-config", "kube-system")
    if config is None or "nodes" in (config.get("data") or {}).get("policy-cidr-match-mode", ""):
        return
    node_addresses = {
        item["address"]
        for node in api.items("/api/v1/nodes", hidden_as_empty=True)
        for item in node["status"].get("addresses") or []
    }
    subsets = (api.own("endpoints/kubernetes", "default") or {}).get("subsets") or []
    hosts = {address["ip"] for subset in subsets for address in subset.get("addresses") or []}
    if both := sorted(hosts & node_addresses):
        fix = "set policy-cidr-match-mode to nodes in ConfigMap cilium-config (k8s/README.md)"
        yield WRONG, f"Cilium stops steps on the way to the Kubernetes API at the node {both[0]}; {fix}"
