import re

import pytest
import yaml

from marco_model.errors import InputError
from pipelines import configuration, kubeflow_runner, places
from pipelines.pipeline import create_pipeline

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=configuration.preset_names())
def package(request, tmp_path_factory):
    loaded = configuration.load(request.param, ["tracking.uri=http://mlflow:5000"])
    pipeline = create_pipeline(loaded, places.remote(loaded, "gs://bucket/runs"), "gs://bucket/marco", "v1")
    output = tmp_path_factory.mktemp("package") / "marco.yaml"
    kubeflow_runner.compile_package(pipeline, output, "registry.example/marco@sha256:0123")
    return yaml.safe_load(output.read_text())


def tasks(package):
    return package["root"]["dag"]["tasks"]


def test_the_schema_is_what_open_source_kubeflow_accepts(package):
    assert package["schemaVersion"] == "2.1.0"
    assert re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", package["pipelineInfo"]["name"])
    assert all(re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", name) for name in tasks(package))


def test_every_step_runs_our_image_and_none_is_a_resolver(package):
    executors = package["deploymentSpec"]["executors"]
    assert set(executors) == {f"{name}_executor" for name in tasks(package)}
    for executor in executors.values():
        assert executor["container"]["image"] == "registry.example/marco@sha256:0123"
        assert set(executor) == {"container"}


def test_every_input_has_its_producer(package):
    expected = {
        "StatisticsGen": {"MarcoExampleGen"},
        "ExampleValidator": {"StatisticsGen", "CuratedSchema"},
        "Transform": {"MarcoExampleGen", "CuratedSchema"},
        "Trainer": {"Transform"},
        "Evaluator": {"MarcoExampleGen", "Trainer"},
        "Pusher": {"Trainer", "Evaluator"},
    }
    for name, task in tasks(package).items():
        artifacts = task.get("inputs", {}).get("artifacts", {})
        sources = {source["taskOutputArtifact"]["producerTask"] for source in artifacts.values()}
        assert sources == expected.get(name, set())
        for source in artifacts.values():
            produced = source["taskOutputArtifact"]
            component = package["components"][tasks(package)[produced["producerTask"]]["componentRef"]["name"]]
            assert produced["outputArtifactKey"] in component["outputDefinitions"]["artifacts"]


def test_training_waits_for_the_gate(package):
    assert "ExampleValidator" in tasks(package)["Transform"]["dependentTasks"]


def test_no_runtime_parameter_is_frozen_into_text_and_no_path_of_this_machine(package):
    text = yaml.safe_dump(package)
    assert "RuntimeParameter" not in text
    assert str(configuration.PRESETS.parent.parent) not in text


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.yaml"):
        kubeflow_runner.compile_package(None, tmp_path / "marco.json", "image")
