"""The network policies allow the connections that a run needs and no others."""

from __future__ import annotations

import pytest

from tests.k8s import network, rendering


@pytest.fixture
def peers():
    peer = network.Peer
    return {
        "mlflow": peer((("app.kubernetes.io/name", "mlflow"),)),
        "postgres": peer((("app.kubernetes.io/name", "postgres"),)),
        "step": peer((("workflows.argoproj.io/workflow", "marco-x7k2p"),)),
        "replica": peer((("jobset.sigs.k8s.io/jobset-name", "marco-x7k2p-1"),)),
        "model server": peer((("serving.kserve.io/inferenceservice", "marco"),)),
        "previews": peer((("app", "ml-pipeline-ui-artifact"),)),
        "stranger": peer((("app", "notebook"),)),
        "neighbour": peer(namespace="elsewhere"),
        "client": peer(namespace="lab", namespace_labels=(("marco-predictions", "allowed"),)),
        "gateway": peer(namespace="istio-system"),
        "kubeflow": peer(namespace="kubeflow"),
        "dns": peer(namespace="kube-system"),
        "internet": peer(address="203.0.113.7"),
    }


ALLOWED = [
    ("step", "mlflow", 5000),
    ("step", "kubeflow", 8887),
    ("step", "kubeflow", 9000),
    # gs:// and the Kubernetes API.
    ("step", "internet", 443),
    ("step", "internet", 6443),
    ("replica", "replica", 2222),
    ("replica", "mlflow", 5000),
    ("replica", "internet", 443),
    ("mlflow", "postgres", 5432),
    ("mlflow", "kubeflow", 9000),
    ("mlflow", "internet", 443),
    ("kubeflow", "previews", 3000),
    ("previews", "kubeflow", 9000),
    ("gateway", "model server", 8080),
    ("client", "model server", 8080),
    ("model server", "internet", 443),
    *((pod, "dns", 53) for pod in ("step", "replica", "mlflow", "postgres", "model server")),
]
DENIED = [
    ("step", "postgres", 5432),
    ("step", "replica", 2222),
    ("step", "internet", 22),
    ("replica", "postgres", 5432),
    ("replica", "kubeflow", 8887),
    # The replicas never call the Kubernetes API.
    ("replica", "internet", 6443),
    ("postgres", "internet", 443),
    ("postgres", "mlflow", 5000),
    ("mlflow", "kubeflow", 8887),
    ("model server", "mlflow", 5000),
    ("model server", "postgres", 5432),
    ("step", "model server", 8080),
    ("neighbour", "mlflow", 5000),
    ("neighbour", "postgres", 5432),
    ("neighbour", "model server", 8080),
    ("neighbour", "replica", 2222),
    ("kubeflow", "mlflow", 5000),
    ("previews", "internet", 443),
    *(("stranger", pod, port) for pod, port in (("mlflow", 5000), ("postgres", 5432), ("internet", 443))),
]


@pytest.mark.parametrize(("source", "target", "port"), ALLOWED)
def test_connections_that_a_run_needs_pass(objects, peers, source, target, port):
    assert network.allowed(objects, peers[source], peers[target], port)


@pytest.mark.parametrize(("source", "target", "port"), DENIED)
def test_no_other_connection_passes(objects, peers, source, target, port):
    assert not network.allowed(objects, peers[source], peers[target], port)


def test_without_policies_everything_passes(peers):
    assert network.allowed([], peers["stranger"], peers["postgres"], 5432)


def test_only_the_gpu_overlay_reaches_the_metadata_server(base):
    server = network.Peer(address="169.254.169.252")
    mlflow = network.Peer((("app.kubernetes.io/name", "mlflow"),))
    postgres = network.Peer((("app.kubernetes.io/name", "postgres"),))
    gpu = rendering.render("overlays/gpu")
    assert network.allowed(gpu, mlflow, server, 988) and not network.allowed(gpu, postgres, server, 988)
    assert not network.allowed(base, mlflow, server, 988)
