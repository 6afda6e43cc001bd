"""The overlay of the configuration in the steps, in the cache key and in MLflow."""

import pytest
import typer.testing

from components.steps import cluster_data
from marco_data.overlay import overlay_fingerprint
from marco_data.shards import fingerprint
from marco_data.synthetic import Settings, synthesize
from marco_model.errors import InputError
from pipelines import cli, compilation, configuration, pipeline, places
from tests import stores

OVERLAY = "image_id,label,rater,date\n1,Clear,anna,2026-01-01\n"


@pytest.fixture
def overlay(tmp_path):
    path = tmp_path / "overlay.csv"
    path.write_text(OVERLAY)
    return path


def test_a_missing_or_broken_overlay_is_reported_before_anything_is_drawn(overlay, tmp_path):
    overlay.write_text(OVERLAY.replace("2026-01-01", "yesterday"))
    for path, message in ((overlay, "line 2: date is 'yesterday'"), (tmp_path / "none.csv", "there is no file")):
        arguments = ["run", "--overlay", str(path), "--output", str(tmp_path / "run")]
        result = typer.testing.CliRunner().invoke(cli.app, arguments)
        assert isinstance(result.exception, InputError) and message in str(result.exception)
    assert not (tmp_path / "run" / "data").exists()


def test_the_step_data_counts_the_overlay_as_content(overlay, tmp_path):
    synthesize(tmp_path / "drops", 8, Settings(shorter_side=48), processes=1)
    source = str(tmp_path / "drops")
    description = cluster_data.describe(source, "random", None, "", str(overlay))
    assert description["fingerprint"] == fingerprint([source], str(overlay)) != fingerprint([source])
    with pytest.raises(InputError, match="there is no overlay"):
        cluster_data.describe(source, "random", None, "", str(tmp_path / "none.csv"))


def test_a_package_passes_the_overlay_to_the_step_data_if_there_is_one():
    for overlay in ("", "gs://bucket/overlay.csv"):
        package = {"root": {"dag": {"tasks": {}}}, "components": {}, "deploymentSpec": {"executors": {}}}
        loaded = configuration.load("local", [f"data.overlay={overlay!r}"])
        compilation.add_data_step(package, loaded, place="/data", lookup="{}")
        (executor,) = package["deploymentSpec"]["executors"].values()
        arguments = executor["container"]["args"]
        assert ("--overlay" in arguments) == bool(overlay)
        if overlay:
            assert arguments[arguments.index("--overlay") + 1] == overlay


def test_training_gets_the_overlay_with_the_data(tmp_path):
    loaded = configuration.load("local", ["data.overlay=gs://bucket/overlay.csv"])
    job = pipeline.training_job(loaded, ("Clear",), places.local(loaded, tmp_path))
    assert job.data.overlay == "gs://bucket/overlay.csv"


@pytest.mark.slow
def test_mlflow_records_which_overlay_a_run_was_trained_with(overlay, tmp_path, monkeypatch):
    from components import mlflow_runs, mlflow_store

    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    run = mlflow_runs.open_run(stores.local_store(tmp_path), "marco", "key", "run")
    run.log_data(name="marco", fingerprint="0a", source="/data", counts={"train": 1}, overlay=str(overlay))
    tags = mlflow_store.connect(run.tracking_uri).get_run(run.run_id).data.tags
    assert tags["data.overlay"] == str(overlay)
    assert tags["data.overlay_fingerprint"] == overlay_fingerprint(str(overlay))
