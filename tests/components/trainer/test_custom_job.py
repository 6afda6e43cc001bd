"""The Trainer step with a CustomJob, against a stand-in for Vertex AI; `marco train` is tested elsewhere."""

import os
import signal

import pytest

from components.machines import Machines
from components.trainer import job as jobs
from components.vertex.api import Pace
from components.vertex.options import Vertex
from marco_model.errors import ClusterError, InputError, Interrupted
from marco_model.recipe import Engine
from tests import small_training

PLACE = {"project": "crystals", "location": "europe-west4", "service_account": "trainer@crystals.iam"}


@pytest.fixture
def vertex():
    from tests.fakes import vertex_api

    with vertex_api.running() as service:
        yield service


@pytest.fixture
def train(vertex, tmp_path, monkeypatch):
    """Returns `train(**changes)`: runs the step; its job.json is not written to a real bucket."""
    from components.trainer import custom_job

    monkeypatch.setattr(jobs.TrainingJob, "write", lambda self: None)
    job = small_training.job(
        key="0123456789abcdef",
        engine=Engine(kind="multi_worker"),
        checkpoints="gs://bucket/checkpoints/0123456789abcdef",
        model_directory=str(tmp_path),
    )

    def run(**changes):
        options = jobs.CustomJob(
            place=Vertex(**PLACE, api=vertex.url),
            machines=Machines(workers=4, accelerator="NVIDIA_TESLA_T4", accelerators=2),
            image="registry.example/marco@sha256:00",
            environment={"A": "1"},
        )
        pace = Pace(tries=4, first=1e-4, longest=1e-4, look=0.001)
        custom_job.run(job.model_copy(update=changes), options, pace)

    (tmp_path / "saved_model.pb").touch()
    return run


def state(name):
    return lambda job: setattr(job, "state", f"JOB_STATE_{name}")


def test_pools_are_chief_workers_and_parameter_servers(vertex, train):
    from components.trainer.custom_job import message

    vertex.states = [state("PENDING"), state("RUNNING"), state("SUCCEEDED")]
    train()
    (job,) = vertex.jobs["customJobs"].values()
    chief, workers = job.job_spec.worker_pool_specs
    assert (chief.replica_count, workers.replica_count) == (1, 3)
    for pool in (chief, workers):
        assert pool.machine_spec.accelerator_type.name == "NVIDIA_TESLA_T4" and pool.machine_spec.accelerator_count == 2
        assert list(pool.container_spec.command) == [
            "marco",
            "train",
            "gs://bucket/checkpoints/0123456789abcdef/job.json",
        ]
        assert [(variable.name, variable.value) for variable in pool.container_spec.env] == [("A", "1")]
    assert job.job_spec.service_account == "trainer@crystals.iam"
    assert job.job_spec.scheduling.restart_job_on_worker_restart
    options = jobs.CustomJob(place=Vertex(**PLACE), machines=Machines(workers=4, parameter_servers=2), image="i")
    asynchronous = message(small_training.job(engine=Engine(kind="parameter_server")), options, "a")
    counts = [pool["replica_count"] for pool in asynchronous["job_spec"]["worker_pool_specs"]]
    assert counts == [1, 3, 2] and not asynchronous["job_spec"]["scheduling"]["restart_job_on_worker_restart"]


@pytest.mark.parametrize("fault", [(500, "before"), ("cut", "before"), ("cut", "after"), (429, "after")])
def test_an_error_at_any_request_makes_no_second_job(vertex, train, fault):
    for number in range(6):
        vertex.jobs["customJobs"].clear()
        at = len(vertex.requests) + number
        vertex.fault = lambda index, method, path, at=at: fault if index == at else None
        vertex.states = [state("RUNNING"), state("SUCCEEDED")]
        train()
        assert len(vertex.jobs["customJobs"]) == 1


def test_a_job_that_a_killed_step_left_is_followed(vertex, train):
    vertex.fault = lambda index, method, path: ("cut", "before") if "customJobs/" in path else None
    with pytest.raises(ClusterError, match="no answer"):
        train()
    assert len(vertex.jobs["customJobs"]) == 1
    next(iter(vertex.jobs["customJobs"].values())).state = "JOB_STATE_RUNNING"
    vertex.fault = lambda index, method, path: None
    vertex.states = [state("RUNNING"), state("SUCCEEDED")]
    train()
    assert len(vertex.jobs["customJobs"]) == 1
    vertex.states = [state("SUCCEEDED")]
    train()  # A job that has ended cannot be continued.
    assert len(vertex.jobs["customJobs"]) == 2


def test_a_signal_cancels_the_job(vertex, train):
    vertex.states = [state("RUNNING"), lambda job: os.kill(os.getpid(), signal.SIGTERM), state("RUNNING")]
    with pytest.raises(Interrupted, match="its CustomJob is cancelled"):
        train()
    assert sum(":cancel" in request for request in vertex.requests) == 1


def test_a_failed_training_is_reported_with_the_reason(vertex, train, tmp_path):
    from google.rpc.status_pb2 import Status

    def fail(job):
        job.state, job.error = "JOB_STATE_FAILED", Status(code=8, message="The replica workerpool1-0 exited with 137")

    vertex.states = [fail]
    with pytest.raises(ClusterError, match=r"failed \(The replica workerpool1-0 exited with 137\)"):
        train()
    (tmp_path / "saved_model.pb").unlink()
    vertex.states = [state("SUCCEEDED")]
    with pytest.raises(ClusterError, match="there is no model"):
        train()


def test_settings_that_do_not_fit_are_refused(vertex, train):
    with pytest.raises(InputError, match="checkpoints lie in /tmp/x, which other machines can't see"):
        train(checkpoints="/tmp/x")
    with pytest.raises(InputError, match=r"engine\.kind is one_device and machines has workers 4"):
        train(engine=Engine())
    assert vertex.requests == []
