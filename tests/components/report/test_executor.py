"""The executor on a real evaluation: its files, the copies in MLflow, and numbers that equal the Evaluator's."""

import json
import shutil

import numpy as np
import pytest
import sklearn.metrics

from tests import stores

pytestmark = pytest.mark.slow


def artifact(kind, uri):
    result = kind()
    result.uri = str(uri)
    return result


@pytest.fixture(scope="module")
def trained(short_network, tmp_path_factory):
    """A model artifact's folder: an untrained network, exported as by the Trainer."""
    from marco_model.classifier import export
    from marco_model.labels import CLASSES
    from marco_model.network import Network, build

    folder = tmp_path_factory.mktemp("trained")
    model = build(Network(input_size=151, depth_multiplier=0.1, auxiliary=False), num_classes=4, seed=0)
    options = {"input_size": 151, "temperature": 1.5, "metadata": {"name": "marco-test"}}
    export(model, folder / "Format-Serving", classes=CLASSES, **options)
    return folder


@pytest.fixture
def examples(tmp_path, write_examples, record):
    rng = np.random.default_rng(0)
    places = [("CSIRO", "Minstrel"), ("CSIRO", "Rock"), ("Merck", "Rock")]
    records = [
        record(
            index,
            index % 4,
            institution=places[index % 3][0],
            imager=places[index % 3][1],
            colour=rng.integers(0, 255, 3),
        )
        for index in range(40)
    ]
    return write_examples(tmp_path / "examples", {"eval": records}, shards=2)


def evaluate(folder, examples, model):
    from tfx.types import standard_artifacts

    from components.steps.evaluation import Evaluator

    evaluation = artifact(standard_artifacts.ModelEvaluation, folder / "evaluation")
    blessing = artifact(standard_artifacts.ModelBlessing, folder / "blessing")
    executor = Evaluator.EXECUTOR_SPEC.executor_class
    context = executor.Context(beam_pipeline_args=[], tmp_dir=str(folder / "tmp"), unique_id="1")
    executor(context).Do(
        {"examples": [examples], "model": [artifact(standard_artifacts.Model, model)]},
        {"evaluation": [evaluation], "blessing": [blessing]},
        {
            "thresholds": json.dumps({"accuracy": 0.0}),
            "classes": json.dumps(["Clear", "Crystals", "Other", "Precipitate"]),
            "split": "eval",
            "batch_size": 16,
        },
    )
    return evaluation


def report(folder, examples, model, evaluation, decision=None, **changes):
    from tfx.types import standard_artifacts

    from components import artifacts
    from components.settings import ReportOptions
    from components.steps.evaluation import Report

    output = artifact(artifacts.Report, folder / "report")
    inputs = {"examples": [examples], "model": [artifact(standard_artifacts.Model, model)], "evaluation": [evaluation]}
    if decision:
        inputs["decision"] = [decision]
    properties = {
        "options": ReportOptions(overlay_samples=2, **changes).model_dump_json(),
        "split": "eval",
        "data_fingerprint": "a3f1c09e",
        "synthetic": 1,
    }
    executor = Report.EXECUTOR_SPEC.executor_class
    executor(executor.Context(tmp_dir=str(folder / "tmp"), unique_id="1")).Do(inputs, {"report": [output]}, properties)
    return folder / "report"


def test_the_report_shows_the_evaluation_the_decision_and_the_run(tmp_path, examples, trained):
    from components import evaluations, mlflow_runs, mlflow_store
    from components.artifacts import Decision

    store = stores.local_store(tmp_path / "mlflow")
    run = mlflow_runs.open_run(store, "marco", "judged", "judged")
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    (model / mlflow_runs.TRAINING_FILE).write_text(json.dumps({"mlflow_run_id": run.run_id, "tracking_uri": store}))
    evaluation = evaluate(tmp_path, examples, model)
    (tmp_path / "decision").mkdir()
    decided = {"blessed": False, "champion": None, "reasons": ["no better"], "checks": []}
    (tmp_path / "decision" / "decision.json").write_text(json.dumps(decided))
    folder = report(tmp_path, examples, model, evaluation, artifact(Decision, tmp_path / "decision"))
    written = json.loads((folder / "report.json").read_text())
    judged = evaluations.slice_metrics(evaluation.uri)["slices"]
    overall = judged["overall"]["all"]
    assert written["accuracy"]["share"] == pytest.approx(overall["accuracy"], abs=1e-9)
    assert written["accuracy"]["count"] == overall["count"] == 40
    assert written["roc"][0]["auc"] == pytest.approx(overall["auc/Crystals"], abs=1e-9)
    for part in written["slices"]:
        assert {row["name"]: row["accuracy"]["share"] for row in part["rows"]} == {
            name: found["accuracy"] for name, found in judged[part["kind"]].items()
        }
    assert written["verdict"]["blessed"] is False
    assert written["verdict"]["reasons"] == ["no better"]
    assert written["about"]["model"] == "marco-test"
    assert written["about"]["mlflow_run_id"] == run.run_id
    assert written["about"]["data_fingerprint"] == "a3f1c09e"
    assert written["calibration"]["temperature"] == 1.5
    shown = sum(len(kind["images"]) for kind in written["errors"])
    assert written["pictures"]["overlays"] == shown > 0
    html = (folder / "report.html").read_text()
    different = {image["row"] for kind in written["errors"] for image in kind["images"]}
    assert html.count("data:image/jpeg") == 2 * shown + len(written["disagreements"])
    assert len(different) == shown
    assert "marco-test" in html
    assert {path.name for path in (folder / "figures").iterdir()} == {"roc.svg", "calibration.svg", "thresholds.svg"}
    kept = {file.path for file in mlflow_store.connect(store).list_artifacts(run.run_id, "report")}
    assert kept == {"report/report.html", "report/report.json", "report/MODEL_CARD.md", "report/figures"}
    card = (folder / "MODEL_CARD.md").read_text()
    assert "| eval | 40 | the figures below |" in card
    assert f"value: {overall['accuracy']}" in card
    assert "input size 151" in card


def test_a_report_needs_neither_mlflow_nor_the_gate_nor_gradients(tmp_path, examples, colour_model):
    from components import evaluations

    evaluation = evaluate(tmp_path, examples, colour_model)
    folder = report(tmp_path, examples, colour_model, evaluation, disagreements=3)
    written = json.loads((folder / "report.json").read_text())
    table = evaluations.read_predictions(evaluation.uri)
    accuracy = sklearn.metrics.accuracy_score(table["label"], evaluations.scores_of(table).argmax(axis=1))
    assert written["accuracy"]["share"] == pytest.approx(accuracy, abs=1e-6)
    assert written["verdict"]["blessed"] is True
    assert written["pictures"]["overlays"] == 0
    assert len(written["disagreements"]) == 3
    assert (folder / "report.html").is_file()


def test_overlays_end_when_their_time_is_up(trained, real_images):
    from components.report.plots import overlays
    from marco_model.load import open_classifier

    images = [path.read_bytes() for path in real_images.values()]
    classifier = open_classifier(trained / "Format-Serving")
    assert len(overlays(classifier, images, [0] * 6, samples=1, seconds=0)) == 1
    assert len(overlays(classifier, images[:2], [0] * 2, samples=1, seconds=60)) == 2
