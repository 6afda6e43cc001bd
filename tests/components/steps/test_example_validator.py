import json

import pytest

pytestmark = pytest.mark.slow


def run_gate(artifact, folder):
    from tfx.components.statistics_gen import executor as statistics_executor
    from tfx.types import artifact_utils, standard_artifacts

    from components.steps.ingestion import CuratedSchema, ValidatorExecutor, schema_fingerprint, stats_options
    from marco_model.labels import CLASSES

    def make_artifact(kind, name):
        result = kind()
        result.uri = str(folder / name)
        return result

    schema, statistics = (
        make_artifact(standard_artifacts.Schema, "schema"),
        make_artifact(standard_artifacts.ExampleStatistics, "stats"),
    )
    anomalies = make_artifact(standard_artifacts.ExampleAnomalies, "anomalies")
    component = CuratedSchema(fingerprint=schema_fingerprint(), classes=json.dumps(CLASSES))
    component.executor_spec.executor_class().Do({}, {"schema": [schema]}, dict(component.exec_properties))
    statistics_executor.Executor().Do(
        {"examples": [artifact]},
        {"statistics": [statistics]},
        {"stats_options_json": stats_options().to_json(), "exclude_splits": "[]"},
    )
    ValidatorExecutor().Do(
        {"statistics": [statistics], "schema": [schema]}, {"anomalies": [anomalies]}, {"exclude_splits": "[]"}
    )
    assert artifact_utils.decode_split_names(anomalies.split_names) == ["train", "eval"]
    return statistics


@pytest.fixture
def good(record):
    return [record(index, index % 4) for index in range(8)]


def test_good_examples_pass_and_no_image_bytes_are_in_the_statistics(tmp_path, write_examples, good):
    import tensorflow_data_validation as tfdv

    artifact = write_examples(tmp_path / "examples", {"train": good, "eval": good[:4]})
    run_gate(artifact, tmp_path)
    statistics = tfdv.load_stats_binary(str(tmp_path / "stats/Split-train/FeatureStats.pb"))
    names = {feature.path.step[0] for feature in statistics.datasets[0].features}
    assert "image/encoded" not in names
    assert {"image/class/label", "institution"} <= names
    assert statistics.datasets[0].num_examples == 8


def test_anomalies_stop_the_run_and_are_named(tmp_path, write_examples, record, good):
    from marco_model.errors import InputError

    bad = [
        record(100, 1, **{"image/class/label": 7}),
        record(101, 1, **{"image/class/text": b"Fog"}),
        record(103, 1, without="imager"),
        record(104, 1, **{"image/width": 3}),
    ]
    artifact = write_examples(tmp_path / "examples", {"train": good, "eval": good + bad})
    with pytest.raises(InputError) as raised:
        run_gate(artifact, tmp_path)
    message = str(raised.value)
    assert "split eval" in message and "split train" not in message
    for name in ("image/class/label", "image/class/text", "imager", "image/width"):
        assert name in message
    assert "Fog" in message
    assert "fix the data" in message and "\n" not in message


def test_an_empty_split_stops_the_run(tmp_path, write_examples, good):
    from marco_model.errors import InputError

    artifact = write_examples(tmp_path / "examples", {"train": good, "eval": []})
    with pytest.raises(InputError, match="split eval"):
        run_gate(artifact, tmp_path)
