"""What tests/cluster/test_run.py asks of `marco` is what `marco` takes, with a stand-in for Kubeflow's API."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.cluster import test_run
from tests.fakes import kubeflow_api

IMAGE = f"registry.example/marco-pipeline@sha256:{'a' * 64}"


@pytest.mark.long
@pytest.mark.slow
def test_packages_submissions_and_schedules_of_the_suite_are_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("MARCO_TEST_IMAGE", IMAGE)
    (tmp_path / "token").write_text("token")
    with kubeflow_api.running() as kubeflow:
        environment = os.environ | {"PYTHONPATH": str(test_run.ROOT), "KF_PIPELINES_ENDPOINT": kubeflow.url}
        pipeline = test_run.Pipeline("marco-test-1", tmp_path, environment)
        package = pipeline.package(*test_run.TWO_WORKERS)
        spec, _ = yaml.safe_load_all(Path(package).read_text())
        assert "private-artifacts/marco-test-1/runs" in spec["defaultPipelineRoot"]
        kubeflow.states = [("SUCCEEDED", {"Data": "SUCCEEDED", "Trainer": "REUSED"}, None)]
        status, ends, output = pipeline.submit(package)
        assert (status, ends) == (0, {"Data": "done in 12 s", "Trainer": "unchanged, reused"}), output
        kubeflow.states = [("FAILED", {"Data": "FAILED: no shards"}, None)]
        test_run.test_a_step_that_fails_for_good_ends_the_run_with_its_name(pipeline, package)
        test_run.test_two_schedules_of_a_name_leave_one(pipeline, package)
