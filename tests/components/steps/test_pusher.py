"""The Pusher's executor on a real model and a real MLflow store."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from components.published_models import RECORD_FILE, published_path
from tests import stores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):

    return stores.local_store(tmp_path_factory.mktemp("mlflow"))


def train_model(folder, colour_model, store, key, extra=b""):
    """Returns a model artifact with the run that trained it; `extra` makes it another model."""
    from tfx.types import standard_artifacts

    from components import mlflow_runs

    shutil.copytree(colour_model, folder)
    if extra:
        (folder / "Format-Serving/assets.extra").mkdir()
        (folder / "Format-Serving/assets.extra/note").write_bytes(extra)
    run = mlflow_runs.open_run(store, "pusher", key, key)
    content = {"mlflow_run_id": run.run_id, "tracking_uri": store}
    (folder / mlflow_runs.TRAINING_FILE).write_text(json.dumps(content))
    artifact = standard_artifacts.Model()
    artifact.uri = str(folder)
    return artifact


def push(folder, model, destination, blessed, name):
    from tfx.types import standard_artifacts

    from components.steps.pusher import Executor

    blessing = standard_artifacts.ModelBlessing()
    blessing.set_int_custom_property("blessed", int(blessed))
    output = standard_artifacts.PushedModel()
    output.uri = str(folder)
    Executor().Do(
        {"model": [model], "model_blessing": [blessing]},
        {"pushed_model": [output]},
        {
            "destination": str(destination),
            "registered_model": name,
            "run_label": "",
            "run_name": f"pushed {folder.name}",
            "note": "a *note*",
            "judged_against": '{"model": "/models/0", "version": "0"}',
            "signature": "f00d",
        },
    )
    return output


def record(output):
    return json.loads((pathlib.Path(output.uri) / RECORD_FILE).read_text())


def test_blessed_models_become_versions_and_champion(tmp_path, colour_model, store, jpeg):
    import mlflow
    import pandas as pd

    from components import mlflow_store
    from marco_model.labels import CLASSES
    from marco_model.load import open_classifier

    client = mlflow_store.connect(store)
    models = tmp_path / "models"
    first = train_model(tmp_path / "first", colour_model, store, "first")
    output = push(tmp_path / "pushed1", first, models, True, "drops")
    assert output.get_int_custom_property("pushed") == 1
    assert published_path(output.uri) == str(models / "1")
    assert str(client.get_model_version_by_alias("drops", "champion").version) == "1"

    again = push(tmp_path / "pushed2", first, models, True, "drops")
    assert record(again) == record(output)
    assert len(client.search_model_versions("name = 'drops'")) == 1

    second = train_model(tmp_path / "second", colour_model, store, "second", extra=b"other")
    push(tmp_path / "pushed3", second, models, True, "drops")
    champion = client.get_model_version_by_alias("drops", "champion")
    assert str(champion.version) == "2"
    assert champion.tags["previous_champion"] == "1"
    assert champion.tags["published_at"] == champion.tags["served_at"] == str(models / "2")
    assert champion.tags["marco.signature"] == "f00d"
    assert champion.tags["judged_against"] == '{"model": "/models/0", "version": "0"}'
    trained_by = client.get_run(champion.run_id).data.tags
    assert (trained_by["mlflow.runName"], trained_by["mlflow.note.content"]) == ("pushed pushed3", "a *note*")
    assert champion.tags["mlflow.source.git.commit"] == trained_by["mlflow.source.git.commit"]

    third = train_model(tmp_path / "third", colour_model, store, "third", extra=b"worse")
    output = push(tmp_path / "pushed4", third, models, False, "drops")
    assert published_path(output.uri) is None
    assert sorted(child.name for child in models.iterdir()) == ["1", "2"]
    assert str(client.get_model_version_by_alias("drops", "champion").version) == "2"
    assert str(client.get_model_version_by_alias("drops", "challenger").version) == "3"

    images = [jpeg((200, 30, 30)), jpeg((20, 220, 40)), jpeg((5, 5, 250))]
    mlflow.set_registry_uri(store)
    mlflow.set_tracking_uri(store)
    registered = mlflow.pyfunc.load_model("models:/drops@champion")
    found = registered.predict(pd.DataFrame({"image_bytes": images}))
    calibrated = [f"probability_{name}" for name in CLASSES]
    assert list(found.columns) == ["class", *CLASSES, *calibrated, "version"]
    expected = open_classifier(models / "2").score(images)
    np.testing.assert_allclose(found[list(CLASSES)].to_numpy(), expected, rtol=1e-6)
    tempered = np.sqrt(expected) / np.sqrt(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[calibrated].to_numpy(), tempered, rtol=1e-5)
    assert found["class"].tolist() == [CLASSES[index] for index in (1, 2, 3)]
    assert found["version"].tolist() == ["colours"] * 3
    assert registered.predict(pd.DataFrame({"image_bytes": pd.Series([], dtype=object)})).empty
    assert expected.argmax(axis=1).tolist() == [1, 2, 3]
    assert [column.name for column in registered.metadata.signature.inputs.inputs] == ["image_bytes"]
    assert registered.input_example is not None


def test_without_mlflow_a_blessed_model_is_still_published(tmp_path, colour_model):
    from tfx.types import standard_artifacts

    model = standard_artifacts.Model()
    model.uri = str(colour_model)
    output = push(tmp_path / "pushed", model, tmp_path / "models", True, "drops")
    assert published_path(output.uri) == str(tmp_path / "models/1")
    assert record(output)["registered_version"] is None


def test_a_model_in_a_bucket_is_pushed_to_another(tmp_path, colour_model, gcs):
    from tfx.types import standard_artifacts

    runs = gcs.bucket("runs")
    gcs.bucket("models")
    trained = {path.relative_to(colour_model).as_posix(): path for path in colour_model.rglob("*") if path.is_file()}
    for name, path in trained.items():
        runs.blob(f"Trainer/model/7/{name}").upload_from_filename(str(path))
    model = standard_artifacts.Model()
    model.uri = "gs://runs/Trainer/model/7"
    output = push(tmp_path / "pushed", model, "gs://models/drops", True, "drops")
    assert published_path(output.uri) == "gs://models/drops/1"
    assert output.get_string_custom_property("pushed_destination") == "gs://models/drops/1"
    found = gcs.objects("gs://models/drops/1/")
    found.pop("assets.extra/push.json")
    assert found == {name.removeprefix("Format-Serving/"): path.read_bytes() for name, path in trained.items()}
