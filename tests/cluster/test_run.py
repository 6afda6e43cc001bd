"""The life of a pipeline on the cluster that KUBECONFIG names: `make test-cluster`, an hour on one node of 4 cores.

It needs Kubeflow's profiles, and as MARCO_TEST_IMAGE the image of `make image` in a registry of the cluster, by digest.
MARCO_TEST_SERVING names TensorFlow Serving, by digest; without it nothing is served. Nobody has run it yet.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.conftest import ENABLED, apply, moved
from tests.k8s import rendering

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ENABLED not in os.environ, reason="needs a cluster with Kubeflow: make test-cluster"),
]

ROOT = Path(__file__).parents[2]
# Within the quota of overlays/small.
TWO_WORKERS = (
    "engine.kind=multi_worker",
    "cluster.replicas={workers: 2, worker: {cpu: 0.5, memory: 3Gi}}",
    "cluster.steps={Trainer: {cpu: 0.5, memory: 4Gi}}",
)
DROPS = ROOT / "tests" / "data" / "images"


class Pipeline(NamedTuple):
    """The namespace of the pipeline, a folder for its packages, and the variables of `marco`."""

    namespace: str
    folder: Path
    environment: dict[str, str]

    def marco(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, an hour at most."""
        command = [sys.executable, "-m", "pipelines.cli", *arguments]
        return subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=3600)

    def package(self, *changes: str) -> str:
        """Returns a package of the preset `local`, small and with changes."""
        path = self.folder / f"{secrets.token_hex(3)}.yaml"
        settings = (
            "data.synthetic.images=240",
            "recipe.steps=40",
            "thresholds.accuracy=0",
            "thresholds.recall/Crystals=0",
            "gate.evidence=false",
            *changes,
        )
        options = [option for setting in settings for option in ("--set", setting)]
        root = f"minio://mlpipeline/private-artifacts/{self.namespace}/runs"
        places = ("--site", "k8s/site.yaml", "--root", root, "--image", os.environ["MARCO_TEST_IMAGE"])
        done = self.marco("compile", "--preset", "local", *places, *options, "--output", str(path))
        assert done.returncode == 0, done.stderr
        return str(path)

    def options(self) -> list[str]:
        """Returns where the pipeline runs, and as whom."""
        token = ("--token-file", str(self.folder / "token"))
        return ["--namespace", self.namespace, "--service-account", "marco-pipeline", *token]

    def submit(self, package: str, *arguments: str) -> tuple[int, dict[str, str], str]:
        """Returns the exit status of a run, how each step ended, and all that was printed."""
        done = self.marco("submit", package, *self.options(), *arguments)
        lines = (line.partition(": ") for line in done.stderr.splitlines())
        ends = {step: state for step, _, state in lines if state.startswith(("done", "unchanged", "failed"))}
        return done.returncode, ends, done.stderr


def forwarded(kubectl, stack: contextlib.ExitStack, namespace: str, service: str, port: int) -> int:
    """Returns a port of this machine that leads to a Service until the stack is closed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = probe.getsockname()[1]
    command = [rendering.kubectl(), "--namespace", namespace, "port-forward", f"service/{service}", f"{own}:{port}"]
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    stack.callback(process.terminate)
    wait(lambda: socket.create_connection(("127.0.0.1", own), 1).close() is None, 60)
    return own


def wait(condition, seconds: float) -> None:
    """Returns once the condition holds; what it raises on the way counts as no."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, LookupError):
            if condition():
                return
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(2)


@pytest.fixture(scope="module")
def pipeline(kubectl, tmp_path_factory) -> Iterator[Pipeline]:
    """A profile with overlays/small applied to its namespace; all of it is taken away at the end."""
    name = f"marco-test-{secrets.token_hex(3)}"
    profile = {"apiVersion": "kubeflow.org/v1", "kind": "Profile", "metadata": {"name": name}}
    owner = {"kind": "User", "name": f"{name}@example.org"}
    in_namespace = ("--namespace", name)
    own_classes = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [kubectl.run("delete", "priorityclass", title) for title in own_classes])
        stack.callback(kubectl.run, "delete", "profile", name, "--wait=false", "--ignore-not-found")
        assert apply(kubectl, {**profile, "spec": {"owner": owner}}).status == 0
        secret = ("get", "secret", "mlpipeline-minio-artifact", *in_namespace)
        wait(lambda: kubectl.run(*secret).status == 0, 180)
        login = ("--from-literal=username=mlflow", f"--from-literal=password={secrets.token_hex(16)}")
        kubectl.run("create", "secret", "generic", "marco-postgres", *login, *in_namespace)
        for item in moved(rendering.render("overlays/small"), name):
            if item["kind"] in {"InferenceService", "ServingRuntime"} and "MARCO_TEST_SERVING" not in os.environ:
                continue
            if item["kind"] == "ServingRuntime":
                item["spec"]["containers"][0]["image"] = os.environ["MARCO_TEST_SERVING"]
            title = item["metadata"]["name"]
            if item["kind"] == "PriorityClass" and kubectl.run("get", "priorityclass", title).status:
                own_classes.append(title)
            answer = apply(kubectl, item, "--force-conflicts")
            assert answer.status == 0, answer.error
        for what in ("statefulset/postgres", "deployment/mlflow"):
            assert kubectl.run("rollout", "status", what, "--timeout=280s", *in_namespace).status == 0
        folder = tmp_path_factory.mktemp("cluster")
        token = ("create", "token", "default-editor", "--audience=pipelines.kubeflow.org", "--duration=12h")
        (folder / "token").write_text(kubectl.run(*token, *in_namespace).output.strip())
        port = forwarded(kubectl, stack, "kubeflow", "ml-pipeline-ui", 80)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "KF_PIPELINES_ENDPOINT": f"http://127.0.0.1:{port}"}
        yield Pipeline(name, folder, environment)


@pytest.fixture(scope="module")
def package(pipeline) -> str:
    """The package of a run that succeeded, each of whose steps ran."""
    path = pipeline.package()
    status, ends, output = pipeline.submit(path)
    assert status == 0, output
    assert {"Data", "MarcoExampleGen", "Trainer", "Pusher", "Report"} <= ends.keys()
    assert all(state.startswith("done") for state in ends.values()), ends
    return path


def trainers(kubectl, namespace: str) -> list[dict]:
    """Returns the pods of Trainer steps, the oldest first."""
    listed = kubectl.run(
        "get", "pods", "--namespace", namespace, "--output=json", "--sort-by=.metadata.creationTimestamp"
    )
    return [pod for pod in json.loads(listed.output)["items"] if "Trainer_Executor" in json.dumps(pod["spec"])]


def test_the_same_package_again_reuses_every_step_but_the_first(pipeline, package):
    status, ends, output = pipeline.submit(package)
    assert status == 0, output
    assert {step for step, state in ends.items() if state.startswith("done")} == {"Data"}


def test_other_data_are_not_reused(pipeline, package):
    status, ends, output = pipeline.submit(pipeline.package("data.synthetic.images=250"))
    assert status == 0, output
    assert ends["MarcoExampleGen"].startswith("done") and ends["Trainer"].startswith("done")


def test_a_training_whose_pod_is_killed_goes_on_from_its_checkpoint(kubectl, pipeline, package):
    before = {pod["metadata"]["name"] for pod in trainers(kubectl, pipeline.namespace)}
    longer = pipeline.package("recipe.steps=600", "recipe.checkpoint_every=20", "recipe.evaluate_every=40")
    command = [sys.executable, "-m", "pipelines.cli", "submit", longer, *pipeline.options(), "--resubmit", "2"]
    with subprocess.Popen(command, env=pipeline.environment, cwd=ROOT) as run:

        def log_of(number: int) -> tuple[str, str]:
            pods = [pod for pod in trainers(kubectl, pipeline.namespace) if pod["metadata"]["name"] not in before]
            name = pods[number]["metadata"]["name"]
            return name, kubectl.run("logs", name, "--container=main", "--namespace", pipeline.namespace).output

        wait(lambda: "Step 40: validation accuracy" in log_of(0)[1], 1800)
        kubectl.run("delete", "pod", log_of(0)[0], "--namespace", pipeline.namespace)
        wait(lambda: "Resuming training from step" in log_of(-1)[1], 1800)
        assert run.wait(3600) == 0


def test_two_workers_train_in_step(kubectl, pipeline, package):
    status, ends, output = pipeline.submit(pipeline.package(*TWO_WORKERS))
    assert status == 0, output
    assert ends["Trainer"].startswith("done")
    assert not kubectl.run("get", "jobsets", "--namespace", pipeline.namespace, "--output=name").output


def test_a_step_that_fails_for_good_ends_the_run_with_its_name(pipeline, package):
    status, ends, output = pipeline.submit(package, "--data", "/shared/nothing")
    assert status == 1
    assert ends["Data"].startswith("failed") and "failed at Data" in output


def test_two_schedules_of_a_name_leave_one(pipeline, package):
    options = pipeline.options()
    for hour in ("3", "4"):
        assert pipeline.marco("schedule", package, *options, "--cron", f"0 0 {hour} * * 1").returncode == 0
    where = [option for option in options if option not in {"--service-account", "marco-pipeline"}]
    listed = pipeline.marco("schedule", "--list", *where).stdout
    assert listed.count("marco-local") == 1 and "0 0 4 * * 1" in listed
    assert pipeline.marco("schedule", "--remove", "marco-local", *where).returncode == 0


def test_the_model_server_scores_a_drop(kubectl, pipeline, package):
    if "MARCO_TEST_SERVING" not in os.environ:
        pytest.skip("MARCO_TEST_SERVING names no image")
    in_namespace = ("--namespace", pipeline.namespace)
    ready = ("wait", "inferenceservice/marco", "--for=condition=Ready", "--timeout=280s", *in_namespace)
    assert kubectl.run(*ready).status == 0
    drop = base64.b64encode(next(DROPS.glob("*.jpeg")).read_bytes()).decode()
    body = json.dumps({"instances": [{"b64": drop}]})
    port_forward = contextlib.ExitStack()
    with port_forward:
        port = forwarded(kubectl, port_forward, pipeline.namespace, "marco-predictor", 80)
        url = f"http://127.0.0.1:{port}/v1/models/marco:predict"
        done = subprocess.run(["curl", "-sf", "--data", body, url], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["predictions"]
