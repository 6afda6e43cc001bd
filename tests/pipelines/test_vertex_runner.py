"""The packages of two presets, as Vertex AI would be given them."""

import json
import re

import pytest
import typer.testing

from marco_model.errors import InputError
from pipelines import cli, compilation, configuration
from tests.pipelines import vertex_golden as golden


@pytest.fixture(scope="module", params=golden.PRESETS)
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def package(preset, tmp_path_factory):
    return golden.compile_preset(preset, tmp_path_factory.mktemp("package") / "marco.json")


def tasks(package):
    return package["root"]["dag"]["tasks"]


def containers(package):
    return {name: package["deploymentSpec"]["executors"][f"{name}_executor"]["container"] for name in tasks(package)}


@pytest.mark.slow
def test_the_package_is_the_one_that_is_kept(preset, package):
    kept = json.loads((golden.PACKAGES / f"{preset}.json").read_text())
    assert golden.alike(package) == golden.alike(kept), "run python tests/pipelines/vertex_golden.py if this is meant"


@pytest.mark.slow
def test_googles_own_messages_hold_the_package(package):
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    from pipelines import vertex_backend

    spec = json_format.ParseDict(package, pipeline_spec_pb2.PipelineSpec())
    assert spec.schema_version == "2.1.0"
    json_format.ParseDict(package["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    job = vertex_backend.pipeline_job(package, "marco", vertex_backend.Submission({"steps": "20"}))
    assert set(job.pipeline_spec["root"]["dag"]["tasks"]) == set(tasks(package))
    assert job.runtime_config.gcs_output_directory == f"{golden.ROOT}/pipeline" == package["defaultPipelineRoot"]


@pytest.mark.slow
def test_steps_run_our_image_and_what_kubernetes_alone_knows_is_nowhere(package):
    for name, container in containers(package).items():
        assert container["image"] == golden.IMAGE
        module = "cluster_data" if name == "Data" else "entrypoint"
        assert container["command"] == ["python", "-m", f"components.steps.{module}"]
        assert container["resources"]["cpuLimit"] > 0
        assert tasks(package)[name]["retryPolicy"]["maxRetryCount"] == 2
        assert tasks(package)[name]["cachingOptions"]["enableCache"] is (name != "Data")
    assert "kubernetes" not in json.dumps(package).lower().replace("on kubernetes", "")
    assert "nvidia.com" not in json.dumps(containers(package))


@pytest.mark.slow
def test_the_command_compiles_for_vertex_ai(tmp_path):
    arguments = ["--target", "vertex", "--preset", "local", "--root", golden.ROOT, "--set", golden.TRACKING]
    output = tmp_path / "marco.json"
    result = typer.testing.CliRunner().invoke(cli.app, ["compile", *arguments, "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert f"{len(tasks(json.loads(output.read_text())))} steps in {output}" in result.output


@pytest.mark.slow
def test_gpus_have_vertex_ais_name_and_the_endpoint_its_step(tmp_path):
    package = golden.compile_preset("paper", tmp_path / "marco.json")
    accelerator = containers(package)["Trainer"]["resources"]["accelerator"]
    assert accelerator == {"type": "NVIDIA_L4", "count": "4"}
    step = tasks(package)["EndpointPusher"]
    sources = {one["taskOutputArtifact"]["producerTask"] for one in step["inputs"]["artifacts"].values()}
    assert sources == {"Pusher", "MarcoExampleGen"}
    told = json.loads(step["inputs"]["parameters"]["endpoint"]["runtimeValue"]["constant"])
    assert (told["name"], told["traffic"], told["machine_type"]) == ("marco", [10, 50, 100], "n1-standard-8")
    assert "EndpointPusher" not in tasks(json.loads((golden.PACKAGES / "local.json").read_text()))


@pytest.mark.slow
def test_a_training_on_several_machines_is_told_of_them(tmp_path):
    changes = ["machines={workers: 4, accelerator: NVIDIA_L4, accelerators: 2}", "engine.kind=multi_worker"]
    package = golden.compile_preset("paper", tmp_path / "marco.json", *changes)
    config = json.loads(tasks(package)["Trainer"]["inputs"]["parameters"]["training"]["runtimeValue"]["constant"])
    assert config["custom_job"]["machines"]["workers"] == 4
    assert config["custom_job"]["place"]["project"] == "crystals"
    assert config["custom_job"]["image"] == golden.IMAGE
    with pytest.raises(InputError, match=r"engine\.kind is mirrored and machines has workers 4"):
        golden.compile_preset("paper", tmp_path / "marco.json", changes[0])
    with pytest.raises(InputError, match="machines is set and vertex is not"):
        golden.compile_preset("local", tmp_path / "marco.json", *changes)


def test_the_kept_packages_have_ids_that_are_taken():
    for preset in golden.PRESETS:
        package = json.loads((golden.PACKAGES / f"{preset}.json").read_text())
        assert all(re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", name) for name in tasks(package))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("cluster={volumes: [{claim: a, path: /a}]}", "cluster.volumes is set"),
        ("cluster={secrets: [{name: a, path: /a}]}", "cluster.secrets is set"),
    ],
)
def test_what_vertex_ai_does_not_have_is_refused(tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        compilation.compile_for_vertex(configuration.load("local", [change]), "gs://bucket/runs", tmp_path / "a.json")


def test_other_endings_and_roots_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"give a \.json file"):
        compilation.compile_for_vertex(configuration.load("local"), "gs://bucket/runs", tmp_path / "marco.yaml")
    with pytest.raises(InputError, match="gs://BUCKET/FOLDER"):
        compilation.compile_for_vertex(configuration.load("local"), "/shared", tmp_path / "marco.json")


def test_an_endpoint_needs_a_project():
    with pytest.raises(InputError, match="endpoint is set and vertex is not"):
        configuration.load("local", ["endpoint={name: marco}"])
