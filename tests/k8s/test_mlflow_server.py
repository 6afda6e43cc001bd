"""MLflow takes the arguments of the manifest and answers as its comments say."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.k8s import rendering


@pytest.fixture
def server(base, tmp_path):
    """The server as the Deployment starts it, on a free port and with its own store."""
    deployment = rendering.pick(base, "Deployment", "mlflow")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    replaced = {
        "--port": f"--port={port}",
        "--host": "--host=127.0.0.1",
        "--workers": "--workers=1",
        "--backend-store-uri": f"--backend-store-uri=sqlite:///{tmp_path}/mlflow.db",
    }
    arguments = [replaced.get(argument.split("=")[0], argument) for argument in container["args"]]
    command = [sys.executable, "-m", *container["command"], *arguments, f"--artifacts-destination={tmp_path}/artifacts"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while _status(port, "/health", "10.1.2.3:5000") != 200:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.3)
            yield port
        finally:
            # Ends the whole process group, since the server has workers.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


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
