"""The packages of two presets, as Vertex AI would get them."""

import json
import re

import pytest
import typer.testing

from marco_model.errors import InputError
from pipelines import cli, compilation, configuration
from tests import packages
from tests.packages import containers, tasks


@pytest.fixture(scope="module", params=packages.VERTEX)
def preset(request):
    return request.param


@pytest.fixture
def package(preset, compiled):
    return compiled.pipeline(f"{preset}.json")


# Steps that the package has beside Kubeflow's; the Trainer's cores and accelerator.
EXPECTED = {
    "local": (set(), 2.0, None),
    "paper": ({"EndpointPusher"}, 24.0, {"type": "NVIDIA_L4", "count": "4"}),
}


@pytest.mark.slow
def test_a_package_is_that_of_kubeflow_but_for_gpus_and_the_endpoint(preset, package, compiled):
    other = compiled.pipeline(f"{preset}.yaml")
    steps, cores, accelerator = EXPECTED[preset]
    assert set(tasks(package)) == set(tasks(other)) | steps
    resources = containers(package)["Trainer"]["resources"]
    assert (resources["cpuLimit"], resources.get("accelerator")) == (cores, accelerator)
    for name in set(tasks(other)) - {"Data"}:
        assert packages.constants(package, name) == packages.constants(other, name)
        assert containers(package)[name]["args"] == containers(other)[name]["args"]
    for field in ("pipelineInfo", "defaultPipelineRoot", "schemaVersion"):
        assert package[field] == other[field]
    assert package["root"]["inputDefinitions"] == other["root"]["inputDefinitions"]


@pytest.mark.slow
def test_googles_own_messages_hold_the_package(package):
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    from pipelines import backend, vertex_backend

    spec = json_format.ParseDict(package, pipeline_spec_pb2.PipelineSpec())
    assert spec.schema_version == "2.1.0"
    json_format.ParseDict(package["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    job = vertex_backend.pipeline_job(package, "marco", backend.Submission({"steps": "20"}))
    assert set(job.pipeline_spec["root"]["dag"]["tasks"]) == set(tasks(package))
    assert job.runtime_config.gcs_output_directory == f"{packages.ROOT}/pipeline" == package["defaultPipelineRoot"]


@pytest.mark.slow
def test_steps_run_the_projects_image_and_have_no_settings_of_kubernetes(package):
    for name, container in containers(package).items():
        assert container["image"] == packages.IMAGE
        command = ["cluster_data"] if name == "Data" else ["entrypoint", "--keep_uris"]
        assert container["command"] == ["python", "-m", f"components.steps.{command[0]}", *command[1:]]
        assert container["resources"]["cpuLimit"] > 0
        policy = {"maxRetryCount": 2, "backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "3600s"}
        assert tasks(package)[name]["retryPolicy"] == policy
        assert tasks(package)[name]["cachingOptions"]["enableCache"] is (name != "Data")
    assert "kubernetes" not in json.dumps(package).lower().replace("on kubernetes", "")
    assert "nvidia.com" not in json.dumps(containers(package))


@pytest.mark.slow
def test_the_command_compiles_for_vertex_ai(tmp_path):
    arguments = ["--target", "vertex", "--preset", "local", "--root", packages.ROOT, "--set", packages.TRACKING]
    output = tmp_path / "marco.json"
    result = typer.testing.CliRunner().invoke(cli.app, ["compile", *arguments, "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert f"{len(tasks(json.loads(output.read_text())))} steps in {output}" in result.output


@pytest.mark.slow
def test_the_endpoint_has_a_step(compiled):
    package = compiled.pipeline("paper.json")
    step = tasks(package)["EndpointPusher"]
    sources = {source["taskOutputArtifact"]["producerTask"] for source in step["inputs"]["artifacts"].values()}
    assert sources == {"Pusher", "MarcoExampleGen"}
    endpoint = packages.constants(package, "EndpointPusher")["endpoint"]
    assert (endpoint["name"], endpoint["traffic"]) == ("marco", [10, 50, 100])
    assert endpoint["machine_type"] == "n1-standard-8"


@pytest.mark.slow
def test_a_training_on_several_machines_gets_their_settings(tmp_path):
    changes = ["machines={workers: 4, accelerator: NVIDIA_L4, accelerators: 2}", "engine.kind=multi_worker"]
    path, endpoint = tmp_path / "marco.json", packages.CHANGES["paper.json"]
    (package,) = packages.write_package("paper", path, *endpoint, *changes)
    config = packages.constants(package, "Trainer")["training"]
    assert config["custom_job"]["machines"]["workers"] == 4
    assert config["custom_job"]["place"]["project"] == "crystals"
    assert config["custom_job"]["image"] == packages.IMAGE
    with pytest.raises(InputError, match=r"engine\.kind is mirrored and machines has workers 4"):
        packages.write_package("paper", path, *endpoint, changes[0])
    with pytest.raises(InputError, match="machines is set and vertex is not"):
        packages.write_package("local", path, *changes)


@pytest.mark.slow
def test_names_are_what_vertex_ai_accepts(package):
    assert all(re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", name) for name in tasks(package))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cluster={volumes: [{claim: a, path: /a}]}", "cluster.volumes is set"),
        ("cluster={secrets: [{name: a, path: /a}]}", "cluster.secrets is set"),
    ],
)
def test_settings_that_vertex_ai_does_not_have_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        compilation.compile_for_vertex(configuration.load("local", [change]), "gs://bucket/runs", tmp_path / "a.json")


def test_other_endings_and_roots_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"give a \.json file"):
        compilation.compile_for_vertex(configuration.load("local"), "gs://bucket/runs", tmp_path / "marco.yaml")
    with pytest.raises(InputError, match="gs://BUCKET/FOLDER"):
        compilation.compile_for_vertex(configuration.load("local"), "/shared", tmp_path / "marco.json")


def test_an_endpoint_needs_a_project():
    with pytest.raises(InputError, match="endpoint is set and vertex is not"):
        configuration.load("local", ["endpoint={name: marco}"])
