"""The network policies, ours and Kubeflow's together, allow the connections that a run needs and no others."""

from __future__ import annotations

import itertools

import pytest

from pipelines.cluster_check.network import Peer
from tests.k8s import conftest, network, rendering

# The pods of `marco`, by the label that policies select. A step's pods hold driver, launcher and Argo's wait container.
OURS = {
    "step": ("workflows.argoproj.io/workflow", "marco-x7k2p"),
    "replica": ("jobset.sigs.k8s.io/jobset-name", "marco-x7k2p-1"),
    "mlflow": ("app.kubernetes.io/name", "mlflow"),
    "postgres": ("app.kubernetes.io/name", "postgres"),
    "model server": ("serving.kserve.io/inferenceservice", "marco"),
    "volume job": ("app.kubernetes.io/name", "marco-shared"),
    "monitoring": ("app.kubernetes.io/name", "marco-monitoring"),
    "previews": ("app", "ml-pipeline-ui-artifact"),
    "stranger": ("app", "notebook"),
}
PEERS = {
    **{name: Peer(dict([label])) for name, label in OURS.items()},
    **{name: Peer(service["labels"], "kubeflow") for name, service in network.kubeflow()["services"].items()},
    "neighbour": Peer(namespace="elsewhere"),
    "client": Peer(namespace="lab"),
    "gateway": Peer(namespace="istio-system"),
    "kube-dns": Peer({"k8s-app": "kube-dns"}, "kube-system"),
    "node-local DNS cache": Peer(address="169.254.20.10"),
    # Cloud DNS and, on port 80, the metadata server of Dataplane V2.
    "Cloud DNS": Peer(address="169.254.169.254"),
    "metadata server": Peer(address="169.254.169.252"),
    "internet": Peer(address="203.0.113.7"),
}
# Source, target and port, which is that of a Service where the target is one of Kubeflow's.
NEEDED = {
    ("step", "metadata-grpc-service", 8080): "the driver and the launcher record executions and artifacts",
    ("step", "ml-pipeline", 8887): "the driver asks the cache, the launcher reports",
    ("step", "seaweedfs", 9000): "the launcher fetches and stores artifacts, the wait container stores logs",
    ("step", "seaweedfs", 8333): "the same, by the port that SeaweedFS calls its own",
    ("step", "mlflow", 5000): "training, evaluation, gate and push record the run",
    ("step", "internet", 443): "gs:// and the Kubernetes API",
    ("step", "internet", 6443): "the Kubernetes API behind its Service",
    ("replica", "mlflow", 5000): "the chief records the training",
    ("replica", "internet", 443): "gs://, for data and checkpoints",
    ("mlflow", "postgres", 5432): "its database",
    ("mlflow", "seaweedfs", 9000): "its artifacts, where they lie in Kubeflow's store",
    ("mlflow", "seaweedfs", 8333): "the same",
    ("mlflow", "internet", 443): "its artifacts on gs://",
    ("model server", "internet", 443): "models on gs://",
    ("gateway", "model server", 8080): "scores, from outside the cluster",
    ("gateway", "model server", 9000): "the same, by gRPC",
    ("client", "model server", 8080): "scores, from a namespace with the label",
    ("client", "model server", 9000): "the same, by gRPC",
    ("ml-pipeline-ui", "previews", 3000): "a page of Kubeflow asks for a preview",
    ("previews", "seaweedfs", 9000): "which it fetches",
    ("previews", "seaweedfs", 8333): "the same",
    ("previews", "ml-pipeline", 8888): "and asks who may see it",
}
# The nodes' metadata server, for identities: overlays/gpu alone.
METADATA = {
    (pod, server, port)
    for pod in OURS
    if pod != "postgres"
    for server, port in (("metadata server", 988), ("Cloud DNS", 80))
}
MONITORING = {("monitoring", "mlflow", 5000), ("monitoring", "internet", 443)}
PORTS = (22, 53, 80, 443, 988, 2222, 3000, 3306, 5000, 5432, 6443, 8080, 8111, 8333, 8887, 8888, 9000, 40000)
DNS = ("kube-dns", "node-local DNS cache", "Cloud DNS")


def passes(objects, source: str, target: str, port: int, protocol: str = "TCP") -> bool:
    """Returns whether the connection is let through; the port of a Service is followed to its pod's."""
    service = network.kubeflow()["services"].get(target, {"ports": {}})
    return network.allowed(objects, PEERS[source], PEERS[target], service["ports"].get(port, port), protocol)


def served(target: str, port: int) -> bool:
    """Returns whether there is such a port to ask for: a Service of Kubeflow's has its own alone."""
    service = network.kubeflow()["services"].get(target)
    return service is None or port in service["ports"]


@pytest.mark.parametrize("connection", NEEDED, ids=str)
def test_connections_that_a_run_needs_pass(objects, connection):
    assert passes(objects, *connection), NEEDED[connection]


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
@pytest.mark.parametrize("server", DNS)
@pytest.mark.parametrize("pod", OURS)
def test_names_are_resolved(base, pod, server, protocol):
    assert passes(base, pod, server, 53, protocol)


@pytest.mark.parametrize("folder", ["base", "overlays/gpu", "overlays/small", conftest.MONITORED])
def test_no_other_connection_passes(folder):
    objects = rendering.render(folder)
    # NCCL takes ports of its own between replicas.
    expected = {*NEEDED, *(("replica", "replica", port) for port in PORTS)}
    expected |= {(pod, server, 53) for pod in OURS for server in DNS}
    # The policy names the namespace `kubeflow`.
    expected |= {(service, "previews", 3000) for service in network.kubeflow()["services"]}
    expected |= METADATA if folder == "overlays/gpu" else set()
    expected |= MONITORING if folder == conftest.MONITORED else set()
    # Any address: a policy cannot know those of a bucket and of the Kubernetes API.
    hosts = [name for name, peer in PEERS.items() if peer.address]
    expected |= {(source, host, port) for source, target, port in expected if target == "internet" for host in hosts}
    passing = {
        (source, target, port)
        for source, target, port in itertools.product(PEERS, PEERS, PORTS)
        if {source, target} & OURS.keys() and not PEERS[source].address and served(target, port)
        if passes(objects, source, target, port)
    }
    assert passing == expected


def test_without_policies_everything_passes():
    assert network.allowed([], PEERS["stranger"], PEERS["postgres"], 5432)


def test_the_namespace_keeps_the_label_of_a_profile(objects):
    labels = rendering.pick(objects, "Namespace")["metadata"]["labels"]
    assert labels["app.kubernetes.io/part-of"] == "kubeflow-profile"
    assert network.namespace_labels(objects)["pipelines.kubeflow.org/enabled"] == "true"


@pytest.mark.parametrize(
    ("service", "port"), [("ml-pipeline", 8887), ("metadata-grpc-service", 8080), ("seaweedfs", 9000)]
)
def test_another_label_on_the_namespace_shuts_its_pods_out(base, service, port):
    assert passes(base, "step", service, port)
    rendering.pick(base, "Namespace")["metadata"]["labels"]["app.kubernetes.io/part-of"] = "marco"
    assert not passes(base, "step", service, port)


def test_kubeflow_shuts_out_other_namespaces_itself(base):
    assert not network.allowed(base, PEERS["neighbour"], PEERS["ml-pipeline"], 8887)
    assert not network.allowed(base, PEERS["neighbour"], PEERS["mysql"], 3306)
    assert network.allowed(base, PEERS["seaweedfs"], PEERS["mysql"], 3306)
