"""MLflow takes the arguments of the manifest and answers as its comments say."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests import mlflow_server, processes
from tests.k8s import rendering


@pytest.fixture
def server(base, tmp_path):
    """The server as the Deployment starts it, on a free port and with its own store."""
    deployment = rendering.pick(base, "Deployment", "mlflow")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    port = processes.free_port()
    replaced = {
        "--port": f"--port={port}",
        "--host": "--host=127.0.0.1",
        "--workers": "--workers=1",
        "--backend-store-uri": f"--backend-store-uri=sqlite:///{tmp_path}/mlflow.db",
    }
    arguments = [replaced.get(argument.split("=")[0], argument) for argument in container["args"]]
    with mlflow_server.running(
        [*container["command"], *arguments], tmp_path, lambda: _status(port, "/health", "10.1.2.3:5000") == 200, 120
    ):
        yield port


def _status(port: int, path: str, host: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.slow
def test_the_server_starts_and_accepts_its_own_host_names_only(server):
    experiment = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    for host in ("mlflow:5000", "mlflow.marco:5000", "mlflow.marco.svc.cluster.local:5000", "localhost:5000"):
        assert _status(server, experiment, host) == 200, host
    assert _status(server, experiment, "attacker.example") == 403
    # The kubelet's probes come with the pod's address.
    assert _status(server, "/health", "10.1.2.3:5000") == 200
