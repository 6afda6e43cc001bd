"""A cluster on this machine (kubernetes_api.py), a small job to train on it, and the step as a process."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).parent


@functools.cache
def problems_of():
    """Returns what tells of a JobSet what JobSet's and Kubernetes' schemas and the restricted standard refuse."""
    from tests.k8s import restricted, validation

    def problems(body):
        pods = [job["template"]["spec"]["template"]["spec"] for job in body["spec"]["replicatedJobs"]]
        broken = [what for pod in pods for rule in restricted.RESTRICTED.values() for what in rule(pod)]
        return [*validation.problems(body, "1.32"), *broken]

    return problems


@pytest.fixture
def start_cluster(tmp_path, monkeypatch):
    """`start_cluster(marco)` returns a running cluster on which the command `marco` is the file `marco`."""
    from tests.fakes import kubernetes_api as api

    started = []

    def start(marco=None):
        executable = str(marco or pathlib.Path(sys.executable).parent / "marco")
        context = api.running(tmp_path, {"marco": executable}, problems_of())
        cluster = context.__enter__()
        started.append(context)
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        monkeypatch.setenv("MARCO_NAMESPACE", "marco")
        return cluster

    yield start
    for context in started:
        context.__exit__(None, None, None)


@pytest.fixture
def problems():
    return problems_of()


@pytest.fixture
def wait_until():
    """`wait_until(what, seconds)` waits until `what()` is true and returns it."""

    def wait(what, seconds=60):
        until = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < until, "nothing came"
            time.sleep(0.05)
        return found

    return wait


@pytest.fixture
def start_step(tmp_path):
    """`start_step(job, placement, pace, **environment)` starts step.py with them."""
    started = []

    def start(job, placement, pace, **environment):
        told = {name: dataclasses.asdict(one) for name, one in (("placement", placement), ("pace", pace))}
        job.write()
        file = tmp_path / f"step-{len(started)}.json"
        file.write_text(json.dumps({**told, "job": f"{job.checkpoints}/job.json"}))
        process = subprocess.Popen(
            [sys.executable, str(HERE / "step.py"), str(file)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            process.communicate()
