"""`marco models` as a user runs it, on a real MLflow store."""

import mlflow
import typer.testing

from pipelines.cli import app


def marco(*arguments):
    return typer.testing.CliRunner().invoke(app, ["models", *map(str, arguments)])


def test_versions_are_listed_with_what_they_reached_and_where_they_serve(tmp_path):
    store = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(store, store)
    run = client.create_run(client.create_experiment("tests", str(tmp_path / "artifacts")))
    client.log_metric(run.info.run_id, "eval/accuracy", 0.9375)
    client.create_registered_model("drops")
    tags = {"published_at": "gs://models/drops/1"}
    client.create_model_version("drops", str(tmp_path), run.info.run_id, tags=tags)
    client.create_model_version("drops", str(tmp_path), run.info.run_id)
    client.set_registered_model_alias("drops", "champion", "1")
    listed = marco("list", "--tracking", store, "--name", "drops")
    assert listed.exit_code == 0, listed.output
    rows = [line.split() for line in listed.output.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["2", "1"]
    assert rows[1][1:3] == ["champion", "93.75%"]
    assert "version 1 is published at gs://models/drops/1" in listed.output
    assert "version 2 is published" not in listed.output
