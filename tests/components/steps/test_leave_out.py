"""The steps Sources and LeaveOneOut on small artifacts: examples, and models whose scores depend on the colour."""

import json
import pathlib

import numpy as np
import pytest

from components import evaluations, leave_out, mlflow_runs, mlflow_store
from marco_model.errors import InputError
from marco_model.labels import CLASSES
from tests import stores

pytestmark = pytest.mark.slow

PLACES = [("CSIRO", "Minstrel"), ("Zürich", "Rock"), ("Merck", "Rock")]


def artifact(kind, uri):
    from tfx.types import standard_artifacts

    from components import artifacts

    made = getattr(artifacts, kind, None) or getattr(standard_artifacts, kind)
    result = made()
    result.uri = str(uri)
    return result


def run(step, inputs, outputs, parameters):
    from components.steps import leave_out as steps

    executor = getattr(steps, step).EXECUTOR_SPEC.executor_class
    inputs, outputs = ({name: [value] for name, value in values.items()} for values in (inputs, outputs))
    executor(executor.Context(unique_id="1")).Do(inputs, outputs, parameters)


@pytest.fixture
def examples(tmp_path, record, write_examples):
    def drops(first, count):
        return [
            record(number, number % 4, institution=PLACES[number % 3][0], imager=PLACES[number % 3][1])
            for number in range(first, first + count)
        ]

    splits = {"train": drops(0, 150), "validation": drops(200, 9), "eval": drops(300, 6)}
    return write_examples(tmp_path / "examples", splits, shards=2)


def test_sources_are_in_the_order_of_the_records(tmp_path, examples):
    found = artifact("Sources", tmp_path / "sources")
    parameters = {"attribute": "institution", "values": json.dumps(["Zürich"])}
    run("Sources", {"examples": examples}, {"sources": found}, parameters)
    path = f"{found.uri}/{leave_out.SOURCES_FILE}"
    # `write_examples` deals records out to the shards in turn.
    order = [*range(0, 150, 2), *range(1, 150, 2)]
    assert leave_out.seen(path, "train", "Zürich").tolist() == [number % 3 != 1 for number in order]
    assert leave_out.seen(path, "validation", "Zürich").sum() == 6


def test_a_value_that_no_training_image_has_ends_the_run(tmp_path, examples):
    parameters = {"attribute": "imager", "values": json.dumps(["Rock", "Rok"])}
    with pytest.raises(InputError, match=r"no training image has the imager 'Rok'; .* may be Minstrel, Rock"):
        run("Sources", {"examples": examples}, {"sources": artifact("Sources", tmp_path / "sources")}, parameters)


def table(seed):
    import pandas as pd

    rng = np.random.default_rng(seed)
    count = 120
    return pd.DataFrame(
        {
            "shard": "data_tfrecord-00000-of-00001",
            "index": np.arange(count, dtype=np.int32),
            "image_id": np.arange(count),
            "filename": [f"{number}.jpg" for number in range(count)],
            "label": (np.arange(count) % 4).astype(np.int16),
            "institution": [PLACES[number % 3][0] for number in range(count)],
            "imager": [PLACES[number % 3][1] for number in range(count)],
            "scores": list(rng.dirichlet([1] * 4, count).astype(np.float32)),
            "plate": "",
        }
    )


@pytest.fixture
def judged(tmp_path):
    """Returns `judged(name, seed) -> (model, evaluation)`, of a training with a run of its own in MLflow."""
    store = stores.local_store(tmp_path)

    def make(name, seed):
        run = mlflow_runs.open_run(store, "tests", name, name)
        folder = tmp_path / name
        evaluation, model = (artifact(kind, folder / kind) for kind in ("ModelEvaluation", "Model"))
        evaluations.write_predictions(table(seed), f"{evaluation.uri}/{evaluations.PREDICTIONS_FILE}")
        pathlib.Path(evaluation.uri, "metrics.json").write_text(json.dumps({"classes": CLASSES}))
        pathlib.Path(model.uri).mkdir()
        training = {"tracking_uri": store, "mlflow_run_id": run.run_id}
        pathlib.Path(model.uri, mlflow_runs.TRAINING_FILE).write_text(json.dumps(training))
        return run, model, evaluation

    return make


def test_each_step_adds_a_source_to_the_table_and_nests_its_run(tmp_path, judged):
    names, earlier = ["Zürich", "CSIRO"], {}
    home_run, home_model, home = judged("home", 0)
    parameters = {"attribute": "institution", "target": "Crystals", "smallest": 5}
    away = []
    for number, name in enumerate(names, 1):
        run_of_away, away_model, away_evaluation = judged(name, number)
        away.append((run_of_away, away_evaluation))
        report = artifact("LeaveOneOut", tmp_path / f"report-{number}")
        inputs = {"model": home_model, "evaluation": home, "away_model": away_model, "away_evaluation": away_evaluation}
        values = json.dumps(names[:number])
        run("LeaveOneOut", {**inputs, **earlier}, {"report": report}, {**parameters, "values": values})
        earlier = {"earlier": report}
    content = json.loads(pathlib.Path(report.uri, leave_out.JSON_FILE).read_text())
    assert [row["value"] for row in content["rows"]] == names
    for row, (_, evaluation) in zip(content["rows"], away, strict=True):
        own = evaluations.read_predictions(evaluation.uri)
        own = own[own["institution"] == row["value"]]
        right = np.stack(list(own["scores"])).argmax(axis=1) == own["label"].to_numpy()
        assert (row["images"], row["accuracy"]["away"]["share"]) == (40, pytest.approx(right.mean()))
    kept = evaluations.read_predictions(report.uri)
    assert sorted(set(kept["institution"])) == sorted(names)
    assert "Zürich" in pathlib.Path(report.uri, leave_out.HTML_FILE).read_text()

    client = mlflow_store.connect(home_run.tracking_uri)
    for run_of_away, _ in away:
        assert run_of_away.tags()["mlflow.parentRunId"] == home_run.run_id
    logged = client.get_run(home_run.run_id).data.metrics
    shown = content["rows"][1]["accuracy"]["away"]["share"]
    assert logged["leave_out/institution/CSIRO/accuracy/away"] == pytest.approx(shown)
    files = {file.path for file in client.list_artifacts(home_run.run_id, "leave_out")}
    assert files == {f"leave_out/{name}" for name in (leave_out.JSON_FILE, leave_out.HTML_FILE)}
