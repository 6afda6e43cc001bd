"""The scheduled check of images runs a command of this project and reaches what it needs."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.k8s import network, rendering


@pytest.fixture
def job(monitored):
    return rendering.pick(monitored, "CronJob")["spec"]


@pytest.fixture
def container(job):
    (only,) = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return only


def test_the_check_runs_an_existing_command(container):
    import typer.main

    from pipelines.cli import app

    (line,) = container["args"]
    words = shlex.split(line)
    assert words[:4] == ["exec", "marco", "monitor", "check"]
    command = typer.main.get_command(app).commands["monitor"].get_command(None, "check")
    context = command.make_context("check", words[4:])
    assert context.params["days"] == 7
    assert context.params["tracking"] == "http://mlflow:5000"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for path in (context.params["reference"], context.params["model"], context.params["staging"]):
        assert f"/{path.split('/')[1]}" in mounts


def test_an_alarm_is_not_retried(job):
    from pipelines.commands.monitor import ALARM_STATUS

    first = job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]
    assert first["action"] == "FailJob"
    assert ALARM_STATUS in first["onExitCodes"]["values"] and 1 not in first["onExitCodes"]["values"]


def test_the_check_reaches_mlflow_and_buckets_and_nothing_else(monitored, base):
    check = network.Peer({"app.kubernetes.io/name": "marco-monitoring"})
    mlflow = network.Peer({"app.kubernetes.io/name": "mlflow"})
    postgres = network.Peer({"app.kubernetes.io/name": "postgres"})
    internet, dns = network.Peer(address="203.0.113.7"), network.Peer(namespace="kube-system")
    assert network.allowed(monitored, check, mlflow, 5000) and not network.allowed(base, check, mlflow, 5000)
    assert network.allowed(monitored, check, internet, 443) and not network.allowed(monitored, check, internet, 22)
    assert network.allowed(monitored, check, dns, 53)
    assert not network.allowed(monitored, check, postgres, 5432)
    assert not network.allowed(monitored, mlflow, check, 8080)


def test_the_check_reads_the_model_where_a_run_publishes_it(container, base):
    served = rendering.pick(base, "InferenceService")["spec"]["predictor"]["model"]["storageUri"]
    model = re.search(r"--model (\S+)", container["args"][0])[1]
    assert served == f"pvc://marco-shared{model.removeprefix('/shared')}"
