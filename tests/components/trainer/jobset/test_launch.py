"""The step against the API of a cluster, with small scripts as replicas: the reaction to each answer."""

import json
import os
import pathlib
import signal
import sys
import threading
import time

import pytest

from components.machines import Placement, Replicas, Resources, Volume
from components.trainer import job as jobs, jobset, jobset_api
from marco_data import tfrecord
from marco_model import example_files
from marco_model.errors import ClusterError, InputError, Interrupted
from marco_model.recipe import Engine
from tests import small_training

PACE = jobset_api.Pace(
    look=0.1, waiting=0.3, unreachable=1.0, beat=0.2, silence=3, grace=5, gone=10.0, gone_at_signal=10.0, kept=60
)

pytestmark = pytest.mark.slow

# The beginning of every replica's script; `me` and `job` are for the lines that a test adds.
REPLICA = """#!{python} -S
import json, os, pathlib, sys, time
task = json.loads(os.environ["TF_CONFIG"])["task"]
me = task["type"] + "-" + task["index"]
job = json.loads(pathlib.Path(sys.argv[-1]).read_text())
def mark(what):
    (pathlib.Path(sys.argv[-1]).parent / what).touch()
def wait_for(what):
    while not (pathlib.Path(sys.argv[-1]).parent / what).exists():
        time.sleep(0.02)
def train():
    for step in range(3):
        print("step", step, flush=True)
        time.sleep(0.1)
    model = pathlib.Path(job["model_directory"])
    model.mkdir(parents=True)
    (model / "saved_model.pb").write_text(" ".join(job["train_files"]))
    (model.parent / "training.json").write_text("of " + me)
"""


@pytest.fixture
def job(tmp_path):
    step = tmp_path / "step"
    step.mkdir()
    for name in ("train.tfrecord", "eval.tfrecord"):
        (step / name).write_bytes(tfrecord.frame(f"examples to {name}".encode()))
    return small_training.job(
        key="0a1b",
        engine=Engine(kind="multi_worker"),
        tracking=jobs.TrackingServer(uri="http://mlflow.example", experiment="tests"),
        train_files=[str(step / "train.tfrecord")],
        validation_files=[str(step / "eval.tfrecord")],
        checkpoints=str(tmp_path / "shared" / "checkpoints" / "0a1b"),
        model_directory=str(step / "model" / "Format-Serving"),
    )


@pytest.fixture
def placement(tmp_path):
    return make_placement(tmp_path)


def make_placement(tmp_path, **replicas):
    shared = tmp_path / "shared"
    shared.mkdir(exist_ok=True)
    return Placement(
        shared=str(shared),
        volumes=(Volume(claim="marco-shared", path=str(shared)),),
        replicas=Replicas(worker=Resources(memory="7Gi"), **replicas),
    )


@pytest.fixture
def cluster(start_cluster, tmp_path):
    """`cluster(script)` is a running cluster whose replicas are `REPLICA` and the script."""

    def start(script="if me == 'chief-0': train()"):
        marco = tmp_path / "marco"
        marco.write_text(REPLICA.format(python=sys.executable) + script)
        marco.chmod(0o755)
        return start_cluster(marco)

    return start


def count_requests(cluster, method):
    return sum(verb == method for verb, _ in cluster.requests)


def is_gone(cluster):
    return not cluster.jobsets and not cluster.pods and not cluster.alive()


def test_the_model_of_the_chief_becomes_the_model_of_the_step_and_nothing_is_left(cluster, job, placement):
    lines = []
    running = cluster()
    jobset.run(job, placement, pace=PACE, show=lines.append)
    model = pathlib.Path(job.model_directory)
    copied = (model / "saved_model.pb").read_text()
    assert copied.startswith(placement.shared)
    assert (model.parent / "training.json").read_text() == "of chief-0"
    assert [line for line in lines if line.startswith("step")] == ["step 0", "step 1", "step 2"]
    assert is_gone(running)
    # Checkpoints and the job stay for a later run; copies of examples don't.
    assert sorted(path.name for path in pathlib.Path(placement.shared).iterdir()) == ["checkpoints", "trainings"]
    assert not list((pathlib.Path(placement.shared) / "trainings").iterdir())


def test_examples_are_copied_once_and_those_on_the_volume_not_at_all(cluster, job, placement, tmp_path):
    cluster("sys.exit(1)")
    inside = tmp_path / "shared" / "eval.tfrecord"
    pathlib.Path(job.validation_files[0]).rename(inside)
    job.validation_files[:] = [str(inside)]
    times = []
    for _ in range(2):
        with pytest.raises(ClusterError):
            jobset.run(job, placement, pace=PACE)
        (copy,) = (tmp_path / "shared" / "trainings" / job.key / "data").rglob("*.tfrecord")
        assert copy.read_bytes() == tfrecord.frame(b"examples to train.tfrecord")
        index = example_files.read_index([str(copy)])
        assert index.length.tolist() == [len("examples to train.tfrecord")]
        assert pathlib.Path(example_files.index_path(str(copy.parent))).exists()
        times.append(copy.stat().st_mtime_ns)
    assert times[0] == times[1]
    written = json.loads((tmp_path / "shared" / "checkpoints" / job.key / "job.json").read_text())
    assert (written["train_files"], written["validation_files"]) == ([str(copy)], [str(inside)])


def test_what_says_which_images_to_leave_out_is_copied_for_the_replicas(tmp_path, job):
    file, own = tmp_path / "step" / "sources.npz", tmp_path / "shared" / "trainings" / "0a1b"
    file.write_bytes(b"sources")
    left_out = jobs.LeftOut(attribute="imager", value="Rock", sources=str(file))
    inside = jobset.move_in(job.model_copy(update={"left_out": left_out}), str(tmp_path / "shared"), own).left_out
    assert pathlib.Path(inside.sources).is_relative_to(own)
    assert pathlib.Path(inside.sources).read_bytes() == b"sources"
    assert (inside.attribute, inside.value) == ("imager", "Rock")
    distant = left_out.model_copy(update={"sources": "gs://bucket/sources.npz"})
    moved = jobset.move_in(job.model_copy(update={"left_out": distant}), str(tmp_path / "shared"), own)
    assert moved.left_out == distant


def test_a_worker_that_fails_is_named_with_its_last_lines(cluster, job, placement):
    running = cluster(
        """
if me == "worker-0":
    wait_for("chief-begun")
    for line in range(40):
        print("line", line)
    mark("worker-ended")
    sys.exit("no space left")
mark("chief-begun")
wait_for("worker-ended")
time.sleep(5)
sys.exit(1)
"""
    )
    with pytest.raises(ClusterError) as failed:
        jobset.run(job, placement, pace=PACE)
    first, *lines = str(failed.value).splitlines()
    assert first == "training failed: worker 0 ended with exit status 1 (Error)"
    assert lines == [*(f"  line {number}" for number in range(21, 40)), "  no space left"]
    assert is_gone(running)


def test_a_worker_out_of_memory_is_reported_with_the_setting_to_raise(cluster, job, placement, wait_until):
    running = cluster("print('begun', flush=True); time.sleep(60)")

    def kill():
        pod = wait_until(lambda: running.replica("worker-0"))
        wait_until(lambda: pod.lines)
        pod.oom = True
        pod.kill()

    threading.Thread(target=kill, daemon=True).start()
    message = r"worker 0 ended with exit status 137 \(OOMKilled\); raise cluster.replicas.worker.memory, 7Gi now"
    with pytest.raises(ClusterError, match=message):
        jobset.run(job, placement, pace=PACE)
    assert is_gone(running)


def test_a_set_may_restart_and_each_restart_is_reported(cluster, job, tmp_path):
    script = """
begun = pathlib.Path(job["checkpoints"]) / (me + "-begun")
if not begun.exists():
    mark(me + "-begun")
    if me == "worker-0":
        wait_for("chief-0-begun")
        sys.exit(3)
    time.sleep(60)
time.sleep(0.3)
if me == "chief-0": train()
"""
    running, lines = cluster(script), []
    jobset.run(job, make_placement(tmp_path, restarts=1), pace=PACE, show=lines.append)
    assert any(line.startswith("Restart 1 of 1 from the last checkpoint after worker 0") for line in lines), lines
    assert "step 2" in lines
    assert is_gone(running)


def test_a_preempted_replica_does_not_use_up_the_restarts(cluster, job, tmp_path):
    script = """
begun = pathlib.Path(job["checkpoints"]) / (me + "-begun")
if not begun.exists():
    mark(me + "-begun")
    time.sleep(60)
time.sleep(0.3)
if me == "chief-0": train()
"""
    running, lines = cluster(script), []

    def preempt():
        while not (pod := running.replica("worker-0")) or not pathlib.Path(job.checkpoints, "worker-0-begun").exists():
            time.sleep(0.05)
        pod.preempt()

    threading.Thread(target=preempt, daemon=True).start()
    jobset.run(job, make_placement(tmp_path, restarts=0), pace=PACE, show=lines.append)
    assert any(line.startswith("Restart, not counted, from the last checkpoint") for line in lines), lines
    assert "step 2" in lines
    assert is_gone(running)


@pytest.mark.parametrize("restarts", [0, 1])
def test_evictions_for_a_full_disk_use_up_the_restarts(cluster, job, tmp_path, restarts):
    running = cluster("mark(me + '-begun-')\ntime.sleep(60)")
    message = "The node was low on resource: ephemeral-storage."
    evicted, stop = [], threading.Event()

    def evict():
        while not stop.wait(0.05):
            pod = running.replica("worker-0")
            if pod and pod.name not in evicted and pathlib.Path(job.checkpoints, "worker-0-begun-").exists():
                evicted.append(pod.name)
                pod.evict(message)

    threading.Thread(target=evict, daemon=True).start()
    try:
        with pytest.raises(ClusterError, match=rf"worker 0 ended .*Evicted: {message}.*; give its node more of that"):
            jobset.run(job, make_placement(tmp_path, restarts=restarts), pace=PACE, show=[].append)
    finally:
        stop.set()
    assert len(evicted) == restarts + 1
    assert is_gone(running)


@pytest.mark.parametrize(
    "faults",
    [
        [("POST", "jobsets", 429, [("Retry-After", "1")])],
        [("POST", "jobsets", 500, ()), ("GET", "pods", 503, ()), ("DELETE", "jobsets", 500, ())],
        [("POST", "jobsets", "cut", ()), ("GET", "jobsets", "cut", ()), ("GET", "log", "cut", ())],
        [("POST", "jobsets", "cut after", ()), ("DELETE", "jobsets", "cut after", ())],
        [("GET", "log", 500, ()), ("GET", "log", 429, [("Retry-After", "0")])],
    ],
    ids=["429", "500", "cut", "done and cut", "log"],
)
def test_faults_that_pass_are_survived(cluster, job, placement, faults):
    running, lines = cluster(), []
    running.faults = list(faults)
    jobset.run(job, placement, pace=PACE, show=lines.append)
    assert not running.faults
    assert [line for line in lines if line.startswith("step")] == ["step 0", "step 1", "step 2"]
    assert len({pod.name for pod in running.seen_pods}) == len(running.seen_pods) == 2
    assert is_gone(running)


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (403, "run the steps as a service account that may, such as marco-pipeline"),
        (404, "install JobSet and make the namespace, see docs/kubeflow.md"),
        (422, "answers 422 to: create the JobSet"),
    ],
)
def test_a_lasting_error_is_reported_with_its_fix(cluster, job, placement, status, fix):
    running = cluster()
    running.faults = [("POST", "jobsets", status, ())]
    with pytest.raises(ClusterError, match=fix):
        jobset.run(job, placement, pace=PACE)
    assert count_requests(running, "POST") == 1
    assert is_gone(running)


def leftover(job, placement, owner="weekly-trainer-1"):
    step = jobset.Step(namespace="marco", attempt="earlier", pod=owner, uid="0-0")
    return jobset.manifest(job.key, job.engine, placement, step, "job.json", "beat", jobset_api.PACE)


def test_leftovers_of_an_earlier_attempt_are_deleted_first(cluster, job, placement, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    running = cluster("if sys.argv[-1] == 'job.json': time.sleep(60)\nif me == 'chief-0': train()")
    (tmp_path / "job.json").write_text("{}")
    assert running.create(leftover(job, placement))[0] == 201
    running.steps["weekly-trainer-1"] = "Failed"
    before = set(running.seen_pods)
    jobset.run(job, placement, pace=PACE)
    assert len(set(running.seen_pods) - before) == 2
    assert is_gone(running)


def test_a_strangers_and_a_running_steps_jobset_stay(cluster, job, placement, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.json").write_text("{}")
    running = cluster("time.sleep(60)")
    assert running.create(leftover(job, placement))[0] == 201
    running.steps["weekly-trainer-1"] = "Running"
    with pytest.raises(ClusterError, match="the step weekly-trainer-1 trains the same"):
        jobset.run(job, placement, pace=jobset_api.Pace(look=0.1, gone=1.0, beat=1.0))
    running.jobsets[f"marco-{job.key}"]["metadata"]["labels"] = {}
    with pytest.raises(ClusterError, match="this pipeline did not make"):
        jobset.run(job, placement, pace=PACE)
    assert count_requests(running, "DELETE") == 0
    assert len(running.alive()) == 2


@pytest.mark.parametrize(
    ("reason", "message"), [("Unschedulable", "Insufficient nvidia.com/gpu"), ("ImagePullBackOff", "no such image")]
)
def test_a_pod_that_waits_is_reported_once(cluster, job, placement, wait_until, reason, message):
    running, lines = cluster("time.sleep(60)"), []
    running.waiting["worker-0"] = reason

    def stop():
        wait_until(lambda: len([request for request in list(running.requests) if request[1].endswith("pods")]) > 12)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Interrupted) as stopped:
        jobset.run(job, placement, pace=PACE, show=lines.append)
    assert stopped.value.signal == signal.SIGTERM
    (waits,) = (line for line in lines if line.startswith("worker 0 has been waiting"))
    assert f"{reason}: " in waits
    assert message in waits
    assert is_gone(running)


def test_a_jobset_that_someone_deletes_is_reported(cluster, job, placement, wait_until):
    running = cluster("time.sleep(60)")

    def delete():
        wait_until(lambda: len(running.alive()) == 2)
        running.delete(f"marco-{job.key}")

    threading.Thread(target=delete, daemon=True).start()
    with pytest.raises(ClusterError, match="was deleted by someone else"):
        jobset.run(job, placement, pace=PACE)


@pytest.mark.parametrize("shared", ["", "relative"])
def test_a_shared_folder_that_is_not_a_path_is_refused(job, placement, shared):
    with pytest.raises(InputError, match=rf"cluster.shared is '{shared}' and cluster.replicas is set"):
        jobset.run(job, placement.model_copy(update={"shared": shared}))


def test_a_shared_folder_that_cannot_be_written_is_refused(job, placement, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cluster.shared .*/file can't be written"):
        jobset.run(job, placement.model_copy(update={"shared": str(tmp_path / "file")}))
