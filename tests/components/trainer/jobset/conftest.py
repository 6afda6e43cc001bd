"""A cluster on this machine (kubernetes_api.py), a small job to train on it, and the step as a process."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import time

import pytest

from tests import processes, short_network


@functools.cache
def problems_of():
    """Returns a function that lists what the schemas and the restricted standard refuse in a JobSet."""
    from tests.fakes import jobset_rules
    from tests.k8s import restricted, validation

    def problems(body):
        pods = [job["template"]["spec"]["template"]["spec"] for job in body["spec"]["replicatedJobs"]]
        broken = [what for pod in pods for rule in restricted.RESTRICTED.values() for what in rule(pod)]
        return [*validation.problems(body, "1.32"), *jobset_rules.problems(body), *broken]

    return problems


@pytest.fixture
def start_cluster(tmp_path, monkeypatch):
    """`start_cluster(marco)` returns a running cluster; `marco` is a file that replaces the command of that name."""
    from tests.fakes import kubernetes_api as api

    started = []

    def start(marco=None):
        def start_container(command, environment, output):
            assert command[0] == "marco"
            if not marco:
                options = {"stdout": output, "merged": True, "before": short_network.use}
                return processes.marco(*command[1:], environment=environment, **options)
            options = {"stdout": output, "stderr": output, "start_new_session": True}
            return subprocess.Popen([marco, *command[1:]], env=environment, **options)

        context = api.running(tmp_path, start_container, problems_of())
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
def start_step():
    """`start_step(job, placement, pace)` starts the Trainer's step as a process."""
    with contextlib.ExitStack() as started:

        def start(job, placement, pace):
            job.write()
            return started.enter_context(processes.start(_train, f"{job.checkpoints}/job.json", placement, pace))

        yield start


def _train(job, placement, pace):
    from components.trainer import jobset
    from components.trainer.job import read
    from marco_model.errors import exit_status

    with exit_status():
        jobset.run(read(job), placement, pace=pace)
