import json
import math
import subprocess
import sys

import pytest

from components import mlflow_runs, mlflow_store
from marco_model.errors import InputError
from tests import processes, stores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return stores.local_store(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(autouse=True)
def _no_run_given(monkeypatch):
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def read(run):
    return mlflow_store.connect(run.tracking_uri).get_run(run.run_id)


def _resume(store):
    run = mlflow_runs.open_run(store, "marco", "key-1", "again")
    run.log_recipe({"recipe": {"rate": 0.045}})
    print(run.run_id)


def test_a_resumed_training_finds_its_run_from_another_process(store):
    run = mlflow_runs.open_run(store, "marco", "key-1", "first")
    run.log_recipe({"recipe": {"rate": 0.045}})
    run.close("FAILED")
    with processes.start(_resume, store, modules=["mlflow"]) as other:
        assert other.wait(120) == 0, other.stderr
    assert other.stdout.strip() == run.run_id
    assert other.stderr == ""
    assert read(run).info.status == "RUNNING"
    assert mlflow_runs.open_run(store, "marco", "key-2", "other").run_id != run.run_id


def test_a_run_given_by_the_environment_is_used(store, monkeypatch):
    outer = mlflow_runs.open_run(store, "marco", "outer", "outer")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.run_id)
    assert mlflow_runs.open_run(store, "marco", "inner", "inner") == outer
    monkeypatch.setenv("MLFLOW_RUN_ID", "no-such-run")
    with pytest.raises(InputError, match="no-such-run"):
        mlflow_runs.open_run(store, "marco", "inner", "inner")


def test_a_run_of_another_server_in_the_environment_is_ignored(store, monkeypatch):
    """As the MLflow plugin of Kubeflow Pipelines 2.17 sets it for each step."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.kubeflow:5000")
    assert read(mlflow_runs.open_run(store, "marco", "own", "own")).data.tags["marco.run_key"] == "own"
    outer = mlflow_runs.open_run(store, "marco", "outer", "outer")
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{store}/")
    assert mlflow_runs.open_run(store, "marco", "inner", "inner") == outer


def test_what_is_logged_can_be_read(store):
    run = mlflow_runs.open_run(store, "marco", "logged", "logged")
    run.log_recipe({"network": {"input_size": 149, "variant": "paper"}, "seed": 0})
    for step in range(3):
        run.log_curves(step, {"train/loss": 1.0 / (step + 1)})
    run.log_slices(
        {"eval/institution/Bristol-Myers Squibb/accuracy": 0.5, "eval/imager/a(b)/x": 1, "undefined": math.nan}
    )
    run.log_data(name="synthetic", fingerprint="0f" * 32, source="/data", counts={"train": 8, "eval": 2})
    run.close()
    found = read(run)
    assert found.data.params == {"network.input_size": "149", "network.variant": "paper", "seed": "0"}
    assert found.data.metrics["eval/institution/Bristol-Myers Squibb/accuracy"] == 0.5
    assert found.data.metrics["eval/imager/a_b_/x"] == 1.0
    assert "none" not in found.data.metrics
    history = mlflow_store.connect(store).get_metric_history(run.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert found.data.tags["data.fingerprint"] == "0f" * 32
    assert json.loads(found.inputs.dataset_inputs[0].dataset.profile) == {"train": 8, "eval": 2}
    assert found.data.tags["runtime.python"] == sys.version.split()[0]
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize("name", ["../../etc", "a//b", "a/", ".", "..", "", "x" * 10_000, "a\nb", "日本"])
def test_metrics_of_sources_of_any_name_are_logged(store, name):
    """MLflow takes names for paths, and refused the metrics of a whole training because of one such institution."""
    run = mlflow_runs.open_run(store, "marco", f"named {name.encode().hex()[:20]}", "named")
    run.log_slices({f"eval/institution/{name}/{metric}": 0.5 for metric in ("accuracy", "recall")})
    logged = [key for key in read(run).data.metrics if key.startswith("eval/institution/")]
    assert any(key.endswith("/accuracy") for key in logged)
    assert any(key.endswith("/recall") for key in logged)


def test_the_run_of_a_model_is_read_from_its_artifact(tmp_path, store):
    assert mlflow_runs.run_of_model(str(tmp_path)) is None
    (tmp_path / "training.json").write_text(json.dumps({"mlflow_run_id": None, "tracking_uri": None}))
    assert mlflow_runs.run_of_model(str(tmp_path)) is None
    (tmp_path / "training.json").write_text(json.dumps({"mlflow_run_id": "r", "tracking_uri": store, "seconds": 1}))
    assert mlflow_runs.run_of_model(str(tmp_path)) == mlflow_runs.Run(store, "r")


def test_a_recipe_cannot_change_under_one_key(store):
    run = mlflow_runs.open_run(store, "marco", "changed", "changed")
    run.log_recipe({"rate": 0.1})
    run.log_recipe({"rate": 0.1, "seed": 1})
    with pytest.raises(InputError, match=r"refuses.*rate"):
        run.log_recipe({"rate": 0.2})
    assert read(run).data.params == {"rate": "0.1", "seed": "1"}


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/none/mlflow.db"])
def test_a_store_that_fails_is_one_line(uri):
    with pytest.raises(InputError) as raised:
        mlflow_runs.open_run(uri, "marco", "key", "name")
    assert uri in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_commit_is_that_of_the_checkout(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert mlflow_runs.commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    assert mlflow_runs.commit(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "file").write_text("2")
    assert mlflow_runs.commit(tmp_path) == (git("rev-parse", "HEAD"), True)
