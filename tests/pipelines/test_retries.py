"""How often a step runs, by what happens to it and by the version of Kubeflow Pipelines, as docs/kubeflow.md says."""

import re

import pytest

from components.steps import attempts
from pipelines import compilation
from tests import processes
from tests.fakes import argo

HOURS = 3600.0
RETRIES = 2
# What happens to each attempt, and the exit status of the step's process, None where its pod ends with it.
EVENTS = {
    "it fails, be it after hours": (3 * HOURS, 1),
    "its pod is preempted, drained or evicted": (3 * HOURS, None),
    "its container is out of memory": (0.5 * HOURS, None),
    "its input or configuration is wrong": (60.0, attempts.INPUT_ERROR),
    "its node is lost": (3 * HOURS, None),
}
PODS = {
    "its pod is preempted, drained or evicted": {
        "message": "Pod was terminated in response to imminent node shutdown."
    },
    "its container is out of memory": {"main": 137},
    "its node is lost": {"missing": True},
}


def task(seconds=compilation._KUBEFLOW_RETRY_SECONDS):
    package = {
        "deploymentSpec": {"executors": {"Trainer_executor": {"container": {}}}},
        "root": {"dag": {"tasks": {"Trainer": {}}}},
    }
    from components import machines

    compilation.add_resources(package, machines.Cluster(retries=RETRIES), seconds)
    return package["root"]["dag"]["tasks"]["Trainer"]


def runs_and_pods(monkeypatch, version, event, task):
    """Returns how often a step runs to which `event` happens each time, in how many pods, and why no more."""
    seconds, status = EVENTS[event]
    monkeypatch.setenv(attempts.RETRIES, str(RETRIES))
    runs, pods, again, now = 0, [], True, 0.0
    while again:
        monkeypatch.setenv(attempts.NODE, f"marco-x7k2p.root.Trainer.executor({len(pods)})")
        repeated = attempts.retries_left() if status not in (None, attempts.INPUT_ERROR) else 0
        runs += 1 + repeated
        end = now + seconds * (1 + repeated)
        pods.append(argo.Pod(now, end, **PODS.get(event, {"main": 1})))
        again, reason = argo.decision(argo.strategy(version, task), pods)
        now = end + 60
    return runs, len(pods), reason


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.15.0", [(6, 3), (3, 3), (3, 3), (3, 3), (1, 1)]),
        ("2.16.1", [(6, 3), (3, 3), (3, 3), (3, 3), (1, 1)]),
        ("2.17.0", [(3, 1), (1, 1), (1, 1), (1, 1), (3, 3)]),
    ],
)
def test_steps_are_repeated_as_the_documentation_says(monkeypatch, version, expected):
    seen = [runs_and_pods(monkeypatch, version, event, task())[:2] for event in EVENTS]
    assert seen == expected
    column = 2 if version == "2.17.0" else 1
    rows = [line.split("|")[1:-1] for line in (processes.ROOT / "docs/kubeflow.md").read_text().splitlines()]
    table = {row[0].strip(): row[column].strip() for row in rows if len(row) == 3 and row[0].strip() in EVENTS}
    written = {
        event: tuple(map(int, re.findall(r"(\d+) runs? in (\d+) pods?", cell)[0])) for event, cell in table.items()
    }
    assert written == dict(zip(EVENTS, expected, strict=True))


@pytest.mark.parametrize("version", argo.DEFAULTS)
def test_ten_minutes_for_all_attempts_together_would_end_a_long_training(version):
    """What the package had before: Argo counts the time from the start of the first pod."""
    failed = [argo.Pod(0.0, 3 * HOURS, main=1)]
    assert argo.decision(argo.strategy(version, task(600)), failed) == (False, "Max duration limit exceeded")
    lost = [argo.Pod(0.0, 300.0, missing=True), argo.Pod(330.0, 590.0, missing=True)]
    again, reason = argo.decision(argo.strategy(version, task(600)), lost)
    assert (again, reason) == (False, "Backoff would exceed max duration limit")
