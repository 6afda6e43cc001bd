"""Engines with real processes on this machine, trained on the problem of small_problem.py."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from tests import processes
from tests.marco_model.engines import program

pytestmark = pytest.mark.slow
ALONE = "alone"
# Three of each kind; thirty take a minute more: MARCO_TEST_KILLS=30.
KILLS = int(os.environ.get("MARCO_TEST_KILLS", "9"))
# Steps between the checkpoints of a training that is killed.
EVERY = 10


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    from tests.marco_model import small_problem

    folder = tmp_path_factory.mktemp("examples")
    small_problem.write_examples(folder / "train.tfrecord", 60, 0)
    small_problem.write_examples(folder / "eval.tfrecord", 20, 1)
    return folder


@pytest.fixture
def folder(examples, tmp_path):
    for file in examples.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


class Cluster:
    """Processes of program.py by name, each with its own `TF_CONFIG`; those that still run are killed at the end.

    `jobs` maps a job to its number of processes. `run(kind, result, *arguments)` is what each process does.
    """

    def __init__(self, folder, kind, jobs, run, *arguments):
        self.folder, self.processes = folder, {}
        hosts = {job: [f"127.0.0.1:{processes.free_port()}" for _ in range(count)] for job, count in jobs.items()}
        for job, count in jobs.items():
            for index in range(count):
                config = {"cluster": hosts, "task": {"type": job, "index": index}}
                environment = os.environ | ({"TF_CONFIG": json.dumps(config)} if job != ALONE else {})
                name = f"{job}{index}"
                self.processes[name] = processes.start(
                    run, kind, self.result(name), *arguments, environment=environment, merged=True
                )

    def result(self, name):
        return self.folder / f"{name}.npz"

    def log(self, name):
        return self.processes[name].stdout

    def wait(self, name, seconds=120):
        try:
            return self.processes[name].wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{name} did not end in {seconds} s: {self.log(name)[-2000:]}")

    def expect_success(self, name):
        assert self.wait(name) == 0, self.log(name)[-2000:]

    def wait_for_steps(self, name, steps, seconds=90):
        until = time.monotonic() + seconds
        while self.log(name).count("step\n") < steps:
            assert time.monotonic() < until, self.log(name)[-2000:]
            assert self.processes[name].poll() is None, self.log(name)[-2000:]
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for process in self.processes.values():
            process.kill()
            process.wait()


def weights_at(folder, step):
    from marco_model import checkpoints

    newest = checkpoints.newest(str(folder / "checkpoints"))
    assert newest.step == step
    return {name: value for name, value in newest.values.items() if name.startswith("weight/")}


FIFTY = {"steps": 50, "evaluate_every": 25, "checkpoint_every": 25}


# A source head, a raw head, and labels of one source that are hidden.
HEADS = {"adversarial_weight": 1.0, "raw_weight": 0.5, "unlabelled": ("CSIRO",)}
HEADS_ARE_LONG = [pytest.param({}, id="plain"), pytest.param(HEADS, id="heads", marks=pytest.mark.long)]


@pytest.mark.long
@pytest.mark.parametrize("heads", [{}, HEADS], ids=["plain", "heads"])
def test_two_workers_train_as_one_process_does_on_the_joint_batch(folder, examples, heads):
    recipe = {**FIFTY, **heads}
    with Cluster(folder, "multi_worker", {"worker": 2}, program.run_training, folder, recipe) as cluster:
        cluster.expect_success("worker0")
        cluster.expect_success("worker1")
        left, right = (np.load(cluster.result(name)) for name in ("worker0", "worker1"))
    assert all((left[name] == right[name]).all() for name in left.files)
    weights = weights_at(folder, 50)
    alone = folder / "alone"
    alone.mkdir()
    for file in examples.glob("*.tfrecord"):
        (alone / file.name).symlink_to(file)
    with Cluster(alone, "one_device", {ALONE: 1}, program.run_training, alone, recipe) as cluster:
        cluster.expect_success("alone0")
    for name, value in weights_at(alone, 50).items():
        np.testing.assert_allclose(weights[name], value, atol=1e-4, err_msg=name)


@pytest.mark.long
def test_a_lost_worker_is_reported_and_a_restart_resumes_on_another_engine(folder):
    recipe = {"steps": 400, "evaluate_every": 50, "checkpoint_every": 10}
    with Cluster(folder, "multi_worker", {"worker": 2}, program.run_training, folder, recipe, 0.05) as cluster:
        cluster.wait_for_steps("worker0", 25)
        cluster.processes["worker1"].kill()
        assert cluster.wait("worker0") == program.CLUSTER_ERROR, cluster.log("worker0")[-2000:]
        log = cluster.log("worker0")
    assert "ClusterError: another worker is gone (" in log
    assert "start all workers again to continue from the last checkpoint in" in log
    recipe = {"steps": 40, "evaluate_every": 20, "checkpoint_every": 10}
    with Cluster(folder, "mirrored", {ALONE: 1}, program.run_training, folder, recipe) as cluster:
        cluster.expect_success("alone0")
        assert json.loads(str(np.load(cluster.result("alone0"))["trained"]))["resumed_from"] >= 20


@pytest.mark.long
def test_workers_agree_on_the_step_to_resume_from(folder):
    recipe = {"steps": 20, "evaluate_every": 20, "checkpoint_every": 10}
    with Cluster(folder, "one_device", {ALONE: 1}, program.run_training, folder, recipe) as cluster:
        cluster.expect_success("alone0")
    for index in range(2):
        shutil.copytree(folder / "checkpoints", folder / f"checkpoints{index}")
    (folder / "checkpoints1" / "step-000000020.npz").unlink()  # As a store that lists late shows it.
    options = ({**recipe, "steps": 25}, 0.0, False, True)
    with Cluster(folder, "multi_worker", {"worker": 2}, program.run_training, folder, *options) as cluster:
        results = []
        for name in ("worker0", "worker1"):
            cluster.expect_success(name)
            results.append(json.loads(str(np.load(cluster.result(name))["trained"])))
    assert [result["resumed_from"] for result in results] == [10, 10]
    assert results[0] == results[1]
    shutil.rmtree(folder / "checkpoints1")
    with Cluster(folder, "multi_worker", {"worker": 2}, program.run_training, folder, *options) as cluster:
        for name in ("worker0", "worker1"):
            assert cluster.wait(name) == program.CLUSTER_ERROR, cluster.log(name)[-2000:]
            assert "the workers see checkpoints of different steps in" in cluster.log(name)
            assert "(25, 0; 0 for none)" in cluster.log(name)
    assert sorted(path.name for path in (folder / "checkpoints0").iterdir())[-1] == "step-000000025.npz"


@pytest.mark.long
def test_asynchronous_workers_all_contribute_and_one_that_is_killed_does_not_stop_the_others(folder):
    recipe = {"steps": 300, "evaluate_every": 100, "checkpoint_every": 100, "learning_rate": 0.005}
    jobs = {"chief": 1, "worker": 2, "ps": 1}
    with Cluster(folder, "parameter_server", jobs, program.run_training, folder, recipe, 0.02) as cluster:
        cluster.wait_for_steps("chief0", 150)
        cluster.processes["worker1"].kill()
        cluster.expect_success("chief0")
        trained = json.loads(str(np.load(cluster.result("chief0"))["trained"]))
    assert trained["steps"] == 300
    assert trained["accuracy"] >= 0.9
    assert len(trained["streams"]) == 2, "each worker reads its own stream"
    assert min(trained["streams"].values()) >= 20


@pytest.mark.parametrize(
    "kind, jobs, names",
    [
        ("mirrored", {ALONE: 1}, ["alone0"]),
        pytest.param("multi_worker", {"worker": 2}, ["worker0", "worker1"], marks=pytest.mark.long),
        pytest.param("parameter_server", {"chief": 1, "worker": 1, "ps": 1}, ["chief0"], marks=pytest.mark.long),
    ],
)
def test_rmsprop_matches_tf1s_rule_on_every_engine(folder, kind, jobs, names):
    from tests.marco_model import rmsprop_steps

    expected = rmsprop_steps.by_tf1s_rule()
    with Cluster(folder, kind, jobs, program.run_rmsprop) as cluster:
        for name in names:
            cluster.expect_success(name)
            for weights in np.load(cluster.result(name))["weights"]:
                np.testing.assert_allclose(weights, expected, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("heads", [{}, HEADS], ids=["plain", "heads"])
def test_an_asynchronous_worker_compiles_its_forward_and_backward_pass(folder, heads):
    jobs = {"chief": 1, "worker": 1, "ps": 1}
    recipe = {"steps": 20, "evaluate_every": 20, "checkpoint_every": 20, **heads}
    with Cluster(folder, "parameter_server", jobs, program.run_training, folder, recipe, 0.0, True) as cluster:
        cluster.expect_success("chief0")
        assert json.loads(str(np.load(cluster.result("chief0"))["trained"]))["steps"] == 20


@pytest.mark.parametrize("heads", HEADS_ARE_LONG)
@pytest.mark.parametrize("kind", ["one_device", pytest.param("mirrored", marks=pytest.mark.long)])
def test_a_compiled_step_changes_every_number_as_the_step_does(folder, kind, heads):
    with Cluster(folder, kind, {ALONE: 1}, program.run_compiled_steps, heads) as cluster:
        cluster.expect_success("alone0")
        values = np.load(cluster.result("alone0"))
    names = {name.partition(" ")[2] for name in values.files}
    assert {name.partition("/")[0] for name in names} == {"weight", "mean_square", "momentum", "average", "best"}
    for name in names:
        np.testing.assert_allclose(values[f"True {name}"], values[f"False {name}"], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind, jobs", [("one_device", {ALONE: 1}), ("multi_worker", {"worker": 2})])
def test_a_signal_saves_the_current_step_and_ends_unlike_a_failure(folder, kind, jobs):
    recipe = {"steps": 100_000, "evaluate_every": 10_000, "checkpoint_every": 10_000}
    with Cluster(folder, kind, jobs, program.run_training, folder, recipe, 0.05) as cluster:
        first, *others = cluster.processes
        cluster.wait_for_steps(first, 12)
        begun = time.monotonic()
        cluster.processes[first].send_signal(signal.SIGTERM)
        assert cluster.wait(first) == program.INTERRUPTED, cluster.log(first)[-2000:]
        assert time.monotonic() - begun < 20
        for other in others:
            assert cluster.wait(other) == program.INTERRUPTED, "the others stop at the same step"
        log = cluster.log(first)
    from marco_model import checkpoints

    (saved,) = checkpoints.saved_steps(str(folder / "checkpoints"))
    assert saved == log.count("step\n") >= 12
    assert f"Interrupted: training stopped at step {saved} of 100000" in log


def last_steps(output):
    """Returns the step from which a killed process resumed and the last that it finished."""
    resumed = int(output.split()[0]) if " " in output else 0
    return resumed, resumed + output.count(".")


def files(checkpoints, ending):
    """Returns the files with a suffix and the time of their last change."""
    return {(entry.name, entry.stat().st_mtime_ns) for entry in os.scandir(checkpoints) if entry.name.endswith(ending)}


def wait_for_another(process, checkpoints, ending):
    """Waits until a file with a suffix appears or changes, or the process ends."""
    before, until = files(checkpoints, ending), time.monotonic() + 60.0
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # renamed between two calls
            if files(checkpoints, ending) - before:
                return
        time.sleep(0.001)


@pytest.mark.long
@pytest.mark.parametrize("heads", [{}, HEADS], ids=["plain", "heads"])
def test_kills_lose_at_most_one_interval_and_change_nothing(folder, heads):
    """Kills a training at random moments, right after a checkpoint, and while one is written, in turn."""
    from marco_model import checkpoints

    steps, rng = 25 * KILLS, random.Random(0)
    killed, lost, during_a_write = folder / "killed", [], 0
    killed.mkdir()
    for number in range(KILLS):
        saved = max(checkpoints.saved_steps(str(killed)), default=0)
        before = files(killed, ".partial")
        with processes.start(program.run_with_large_checkpoints, folder, killed, steps, EVERY, heads) as process:
            if number % 3 == 0:
                time.sleep(rng.uniform(0.5, 2.0))
            elif number % 3 == 1:
                wait_for_another(process, killed, ".npz")
                time.sleep(rng.uniform(0.0, 0.4))
            else:
                wait_for_another(process, killed, ".partial")
            process.kill()
            process.wait()
        during_a_write += bool(files(killed, ".partial") - before)
        resumed, last = last_steps(process.stdout)
        assert resumed in (0, saved), process.stderr[-3000:]
        lost.append(max(last, saved) - max(checkpoints.saved_steps(str(killed)), default=0))
    assert max(lost) <= EVERY
    assert during_a_write >= 2
    ends = []
    for place in (killed, folder / "whole"):
        with processes.start(program.run_with_large_checkpoints, folder, place, steps, EVERY, heads) as process:
            assert process.wait(120) == 0, process.stderr[-3000:]
        ends.append(checkpoints.newest(str(place)))
    assert all((ends[0].values[name] == value).all() for name, value in ends[1].values.items())
