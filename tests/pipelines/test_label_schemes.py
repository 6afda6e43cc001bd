"""The whole pipeline with HWMRI's ten classes, and with a user's own: every step follows the scheme."""

import csv
import json
import pathlib

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.usefixtures("short_network")]

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "labels.md"
TINY = {
    "transform": {"shorter_side": 152},
    "network": {"input_size": 151, "depth_multiplier": 0.1, "auxiliary": False, "batch_norm_momentum": 0.9},
    "recipe": {"steps": 2, "batch_size": 8, "evaluate_every": 2, "checkpoint_every": 2, "augment": False},
}
OWN = {
    "classes": ["Nothing", "Solid", "Crystal"],
    "from_raw": {
        **dict.fromkeys(("clear drop", "clear drop with dust", "Phase-Separation", "7"), "Nothing"),
        **dict.fromkeys(("light precipitate", "heavy precipitate", "granular precipitate", "film"), "Solid"),
        **dict.fromkeys(("needles", "plates", "facetted blocks", "clusters"), "Crystal"),
        "out of focus": None,
        "dark": "nothing",
        "overexposed": "nothing",
    },
}


def read_section(heading):
    """Returns the YAML of a section of docs/labels.md."""
    text = DOCS.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])


@pytest.fixture(scope="module")
def drops(tmp_path_factory):
    """Synthetic drops whose raw labels are the kinds drawn, and the count of each kind."""
    from marco_data.synthetic import Settings, synthesize

    folder = tmp_path_factory.mktemp("drops") / "set"
    manifest = synthesize(folder, 96, Settings(eval_share=0.4, shorter_side=160))
    return folder, manifest["counts"]["kind"]


@pytest.fixture(scope="module", params=["ten", "own"])
def ran(request, drops, tmp_path_factory):
    """A finished run: (label section, summary, output folder, images by kind)."""
    from components.settings import parse
    from pipelines import configuration, local_runner, pipeline, places

    labels = read_section("Ten classes on synthetic drops")["labels"] if request.param == "ten" else OWN
    metric = "recall/Crystals" if request.param == "ten" else "auc/Solid"
    values = {"name": "tried", "labels": labels, "thresholds": {"accuracy": 0.0, metric: 0.0}, **TINY}
    values |= {"gate": {"evidence": False}}  # A training of two steps has none.
    folder, kinds = drops
    output = tmp_path_factory.mktemp(request.param)
    values |= {"data": {"source": str(folder)}, "tracking": {"uri": f"sqlite:///{output}/mlflow.db"}}
    loaded = parse(configuration.Configuration, values, "test")
    graph = pipeline.create_local_pipeline(loaded, places.local_data(loaded, output), output)
    return labels, local_runner.run(graph, output), output, kinds


def expected_classes(labels):
    from marco_model.labels import TEN_CLASSES

    return list(labels.get("classes") or TEN_CLASSES)


def artifact(output, step, channel, file):
    """Returns the path of a file in a step's only output."""
    (path,) = (output / "pipeline" / step / channel).glob(f"*/{file}")
    return path


def test_every_image_is_written_left_out_or_quarantined(ran):
    labels, summary, _, kinds = ran
    left_out = sum(count for kind, count in kinds.items() if kind == "out of focus" and "classes" in labels)
    assert summary["left_out"] == left_out == sum(summary["left_out_labels"].values())
    assert bool(left_out) == ("classes" in labels)
    assert sum(summary["examples"].values()) + left_out == 96
    assert summary["quarantined"] == 0


def test_examples_and_schema_are_of_the_trained_classes(ran):
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    from marco_data import contract
    from marco_data.synthetic.plan import KINDS
    from marco_model.labels import key

    labels, _, output, _ = ran
    classes = expected_classes(labels)
    text = artifact(output, "CuratedSchema", "schema", "schema.pbtxt").read_text()
    features = {feature.name: feature for feature in text_format.Parse(text, schema_pb2.Schema()).feature}
    assert features[contract.LABEL].int_domain.max == len(classes) - 1
    assert list(features[contract.LABEL_TEXT].string_domain.value) == classes
    table = {"clear drop": "Clear", **{key(str(label)): name for label, name in labels["from_raw"].items()}}
    (folder,) = (output / "pipeline" / "MarcoExampleGen" / "examples").iterdir()
    seen = 0
    for data in tf.data.TFRecordDataset([str(path) for path in folder.glob("Split-*/*")]):
        feature = tf.train.Example.FromString(data.numpy()).features.feature
        label, raw = (feature[name].int64_list.value[0] for name in (contract.LABEL, contract.LABEL_RAW))
        assert feature[contract.LABEL_TEXT].bytes_list.value[0].decode() == classes[label]
        expected = table.get(f"#{raw}", table.get(key(KINDS[raw].name), KINDS[raw].name))
        assert key(expected) == key(classes[label])
        original = feature[contract.GIVEN_TEXT].bytes_list.value
        assert not original or original[0].decode() == KINDS[raw].label
        seen += 1
    assert seen > 80


def test_metrics_and_summary_are_of_the_trained_classes(ran):
    labels, summary, output, _ = ran
    classes = expected_classes(labels)
    metrics = json.loads(artifact(output, "Evaluator", "evaluation", "metrics.json").read_text())
    overall = metrics["slices"]["overall"]["all"]
    assert metrics["classes"] == classes == list(summary["classes"])
    assert {f"{kind}/{name}" for kind in ("precision", "recall", "auc") for name in classes} <= set(overall)
    assert [len(row) for row in overall["confusion_matrix"]] == [len(classes)] * len(classes)
    assert {name: found["count"] for name, found in summary["classes"].items()} == {
        name: sum(row) for name, row in zip(classes, overall["confusion_matrix"], strict=True)
    }
    assert sum(found["count"] for found in summary["classes"].values()) == summary["examples"]["eval"]
    assert set(metrics["slices"]["institution"]) == set(summary["slices"]["institution"])
    assert "CSIRO" in summary["slices"]["institution"]


def test_the_published_model_and_its_scores_have_the_trained_classes(ran, real_images, tmp_path):
    from marco_model.load import open_classifier
    from marco_scoring.prediction import predict
    from marco_scoring.score_table import columns

    labels, summary, _, _ = ran
    assert summary["blessed"]
    classifier = open_classifier(summary["model_path"])
    assert list(classifier.classes) == expected_classes(labels)
    predict(classifier, list(real_images.values())[:2], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns(classifier.classes, stamped=True)
    for row in rows:
        scores = {name: float(row[name.lower()]) for name in classifier.classes}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
        assert row["class"] == max(scores, key=scores.__getitem__)


def test_mlflow_records_the_trained_classes(ran):
    from mlflow.tracking import MlflowClient

    labels, summary, _, _ = ran
    client = MlflowClient(summary["tracking_uri"], registry_uri=summary["tracking_uri"])
    run = client.get_run(summary["mlflow_run_id"])
    assert run.data.params["classes"] == ", ".join(expected_classes(labels))
    assert any(file.path == "confusion_matrix.png" for file in client.list_artifacts(run.info.run_id))
    version = client.get_model_version_by_alias("marco", "champion").version
    folder = pathlib.Path(client.get_model_version_download_uri("marco", version).removeprefix("file://"))
    outputs = json.loads(yaml.safe_load((folder / "MLmodel").read_text())["signature"]["outputs"])
    classes = expected_classes(labels)
    calibrated = [f"probability_{name}" for name in classes]
    assert [column["name"] for column in outputs] == ["class", *classes, *calibrated, "version"]
