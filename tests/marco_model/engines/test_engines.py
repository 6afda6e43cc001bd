"""Engines with real processes on this machine, trained on the small problem of `test_training.py`."""

import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
pytestmark = pytest.mark.slow
ALONE = "alone"
# Thirty take two minutes more: `kills.py FOLDER 30`.
KILLS = 12


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    small = load(HERE.parent / "test_training.py")
    small.write_examples(folder / "train.gz", 60, 0)
    small.write_examples(folder / "eval.gz", 20, 1)
    return folder


@pytest.fixture
def folder(examples, tmp_path):
    for file in examples.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Processes:
    """A cluster of `program.py`, each process with its own `TF_CONFIG`; whatever is left is killed at the end."""

    def __init__(self, folder, task, kind, jobs, **environment):
        self.folder, self.processes = folder, {}
        cluster = {job: [f"127.0.0.1:{free_port()}" for _ in range(count)] for job, count in jobs.items()}
        for job, hosts in cluster.items():
            for index in range(len(hosts)):
                told = {"cluster": cluster, "task": {"type": job, "index": index}} if job != ALONE else None
                self._start(
                    f"{job}{index}", task, kind, environment | ({"TF_CONFIG": json.dumps(told)} if told else {})
                )

    def _start(self, name, task, kind, environment):
        command = [sys.executable, str(HERE / "program.py"), task, kind, str(self.folder), str(self.result(name))]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "ERROR"} | environment
        with self.log(name).open("w") as log:
            self.processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def result(self, name):
        return self.folder / f"{name}.npz"

    def log(self, name):
        return self.folder / f"{name}.log"

    def wait(self, name, seconds=120):
        try:
            return self.processes[name].wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{name} did not end in {seconds} s: {self.log(name).read_text()[-2000:]}")

    def wait_for_steps(self, name, steps, seconds=90):
        until = time.monotonic() + seconds
        while self.log(name).read_text().count("step\n") < steps:
            assert time.monotonic() < until, self.log(name).read_text()[-2000:]
            assert self.processes[name].poll() is None, self.log(name).read_text()[-2000:]
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self.processes.values():
            process.kill()
            process.wait()


def weights_at(folder, step):
    from marco_model import training

    found = training.newest(str(folder / "checkpoints"))
    assert found.step == step
    return {name: value for name, value in found.values.items() if name.startswith("weight/")}


FIFTY = json.dumps({"steps": 50, "evaluate_every": 25, "checkpoint_every": 25})


def alone(folder, recipe=FIFTY):
    with Processes(folder, "train", "one_device", {ALONE: 1}, RECIPE=recipe) as processes:
        assert processes.wait("alone0") == 0, processes.log("alone0").read_text()[-2000:]
    return weights_at(folder, json.loads(recipe)["steps"])


def test_two_workers_train_as_one_process_does_on_the_joint_batch(folder, examples):
    with Processes(folder, "train", "multi_worker", {"worker": 2}, RECIPE=FIFTY) as processes:
        assert processes.wait("worker0") == 0, processes.log("worker0").read_text()[-2000:]
        assert processes.wait("worker1") == 0
        left, right = (np.load(processes.result(name)) for name in ("worker0", "worker1"))
    assert all((left[name] == right[name]).all() for name in left.files)
    two = weights_at(folder, 50)
    (folder / "one").mkdir()
    for file in examples.glob("*.gz"):
        (folder / "one" / file.name).symlink_to(file)
    for name, value in alone(folder / "one").items():
        np.testing.assert_allclose(two[name], value, atol=1e-4, err_msg=name)


def test_a_lost_worker_is_told_of_and_a_restart_resumes_on_another_engine(folder):
    recipe = json.dumps({"steps": 400, "evaluate_every": 50, "checkpoint_every": 10})
    with Processes(folder, "train", "multi_worker", {"worker": 2}, RECIPE=recipe, PAUSE="0.05") as processes:
        processes.wait_for_steps("worker0", 25)
        processes.processes["worker1"].kill()
        assert processes.wait("worker0") == 3, processes.log("worker0").read_text()[-2000:]
        told = processes.log("worker0").read_text()
    assert "ClusterError: another worker is gone at step" in told
    assert "start all workers again to go on from step" in told
    recipe = json.dumps({"steps": 40, "evaluate_every": 20, "checkpoint_every": 10})
    with Processes(folder, "train", "mirrored", {ALONE: 1}, RECIPE=recipe) as processes:
        assert processes.wait("alone0") == 0, processes.log("alone0").read_text()[-2000:]
        assert json.loads(str(np.load(processes.result("alone0"))["trained"]))["resumed_from"] >= 20


def test_asynchronous_workers_all_contribute_and_one_that_is_killed_does_not_stop_the_others(folder):
    recipe = json.dumps({"steps": 300, "evaluate_every": 100, "checkpoint_every": 100, "learning_rate": 0.005})
    jobs = {"chief": 1, "worker": 2, "ps": 1}
    with Processes(folder, "train", "parameter_server", jobs, RECIPE=recipe, PAUSE="0.02") as processes:
        processes.wait_for_steps("chief0", 150)
        processes.processes["worker1"].kill()
        assert processes.wait("chief0") == 0, processes.log("chief0").read_text()[-2000:]
        trained = json.loads(str(np.load(processes.result("chief0"))["trained"]))
    assert trained["steps"] == 300
    assert trained["accuracy"] >= 0.9
    assert len(trained["streams"]) == 2, "each worker reads a stream of its own"
    assert min(trained["streams"].values()) >= 20


@pytest.mark.parametrize(
    "kind, jobs, told_by",
    [
        ("mirrored", {ALONE: 1}, ["alone0"]),
        ("multi_worker", {"worker": 2}, ["worker0", "worker1"]),
        ("parameter_server", {"chief": 1, "worker": 1, "ps": 1}, ["chief0"]),
    ],
)
def test_rmsprop_matches_tf1s_rule_on_every_engine(folder, kind, jobs, told_by):
    expected = load(HERE.parent / "test_rmsprop.py").by_tf1s_rule()
    with Processes(folder, "rmsprop", kind, jobs) as processes:
        for name in told_by:
            assert processes.wait(name) == 0, processes.log(name).read_text()[-2000:]
            for weights in np.load(processes.result(name))["weights"]:
                np.testing.assert_allclose(weights, expected, atol=1e-5)


@pytest.mark.parametrize("kind, jobs", [("one_device", {ALONE: 1}), ("multi_worker", {"worker": 2})])
def test_a_signal_saves_the_current_step_and_ends_apart_from_failure(folder, kind, jobs):
    recipe = json.dumps({"steps": 100_000, "evaluate_every": 10_000, "checkpoint_every": 10_000})
    with Processes(folder, "train", kind, jobs, RECIPE=recipe, PAUSE="0.05") as processes:
        first, *others = processes.processes
        processes.wait_for_steps(first, 12)
        begun = time.monotonic()
        processes.processes[first].send_signal(signal.SIGTERM)
        assert processes.wait(first) == 4, processes.log(first).read_text()[-2000:]
        assert time.monotonic() - begun < 20
        for other in others:
            assert processes.wait(other) == 4, "the others stop at the same step"
        told = processes.log(first).read_text()
    from marco_model import training

    (saved,) = training.steps(str(folder / "checkpoints"))
    assert saved == told.count("step\n") >= 12
    assert f"Interrupted: training stopped at step {saved} of 100000" in told


def test_kills_lose_at_most_one_interval_and_change_nothing(folder):
    command = [sys.executable, str(HERE / "kills.py"), str(folder), str(KILLS)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["lost"]) == KILLS
    assert max(found["lost"]) <= 10, "checkpoints are ten steps apart"
    assert found["during_a_write"] >= 2
    assert found["same"], "the weights equal an uninterrupted run's bit for bit"
