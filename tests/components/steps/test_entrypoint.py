"""The entrypoint with messages as the launcher of Kubeflow Pipelines 2 writes them."""

import json
import os

import pytest

from components.published_models import RECORD_FILE
from components.steps import attempts, entrypoint
from tests import packages, processes
from tests.fakes import step_services

RUN = "v2/artifacts/marco-local/0c7e"
SCHEMA_SPEC = {"artifacts": {"schema": {"artifactType": {"instanceSchema": "title: tfx.Schema\ntype: object\n"}}}}


def executor_input(scheme, output_file="/tmp/kfp_outputs/output_metadata.json"):
    """Returns ExecutorInput of a step with the input `schema` and the output `anomalies`, on a bucket."""
    root = f"{scheme}mlpipeline/{RUN}"
    return {
        "inputs": {
            "artifacts": {
                "schema": {
                    "artifacts": [
                        {"name": "12", "uri": f"{root}/CuratedSchema/schema", "metadata": {"display_name": "schema"}}
                    ]
                }
            },
            "parameterValues": {"note": "as it was"},
        },
        "outputs": {
            "artifacts": {
                "anomalies": {
                    "artifacts": [
                        {
                            "type": {"instanceSchema": "title: tfx.ExampleAnomalies\ntype: object\n"},
                            "uri": f"{root}/Probe/anomalies",
                            "metadata": {},
                        }
                    ]
                }
            },
            "outputFile": output_file,
        },
    }


SCHEMES = {"gs://": "/gcs", "s3://": "/s3", "minio://": "/minio"}


@pytest.mark.parametrize(("scheme", "folder"), SCHEMES.items())
def test_artifacts_are_read_and_written_where_the_launcher_stages_them(scheme, folder):
    message = executor_input(scheme)
    remote = entrypoint.localize(message, SCHEMA_SPEC)
    schema = message["inputs"]["artifacts"]["schema"]["artifacts"][0]
    assert schema["uri"] == f"{folder}/mlpipeline/{RUN}/CuratedSchema/schema"
    assert schema["type"] == SCHEMA_SPEC["artifacts"]["schema"]["artifactType"]
    local = f"{folder}/mlpipeline/{RUN}/Probe/anomalies"
    assert message["outputs"]["artifacts"]["anomalies"]["artifacts"][0]["uri"] == local
    assert remote == {local: f"{scheme}mlpipeline/{RUN}/Probe/anomalies"}


@pytest.mark.parametrize("uri", ["gs://bucket/a/b", "s3://bucket/a", "minio://mlpipeline/a", "/shared/a", "runs/a"])
def test_the_uri_of_a_staged_path_is_found_again(uri):
    assert entrypoint.unstaged(entrypoint.staged(uri)) == uri


@pytest.mark.parametrize("scheme", SCHEMES)
def test_recorded_uris_are_those_in_the_bucket(scheme):
    remote = entrypoint.localize(executor_input(scheme), SCHEMA_SPEC)
    output = {"artifacts": {"anomalies": {"artifacts": [{"uri": next(iter(remote))}]}}}
    entrypoint.restore(output, remote)
    assert output["artifacts"]["anomalies"]["artifacts"][0]["uri"] == f"{scheme}mlpipeline/{RUN}/Probe/anomalies"


def test_an_existing_type_and_a_mounted_path_are_kept():
    message = executor_input("/mounted/")
    kept = {"schemaTitle": "tfx.Schema"}
    message["inputs"]["artifacts"]["schema"]["artifacts"][0]["type"] = kept
    remote = entrypoint.localize(message, SCHEMA_SPEC)
    schema = message["inputs"]["artifacts"]["schema"]["artifacts"][0]
    assert (schema["type"], schema["uri"]) == (kept, f"/mounted/mlpipeline/{RUN}/CuratedSchema/schema")
    assert all(path == uri for path, uri in remote.items())


def test_a_kfp_type_is_replaced_by_the_tfx_type():
    message = executor_input("gs://")
    message["inputs"]["artifacts"]["schema"]["artifacts"][0]["type"] = {"schemaTitle": "system.Artifact"}
    entrypoint.localize(message, SCHEMA_SPEC)
    schema = message["inputs"]["artifacts"]["schema"]["artifacts"][0]
    assert schema["type"] == SCHEMA_SPEC["artifacts"]["schema"]["artifactType"]


def test_a_step_needs_no_inputs():
    message = executor_input("gs://")
    del message["inputs"]
    assert entrypoint.localize(message, {})


def run_probe(tmp_path, note):
    message = executor_input("minio://", str(tmp_path / "kfp_outputs/output_metadata.json"))
    message["inputs"]["parameterValues"]["note"] = note
    schema = tmp_path / f"staged/mlpipeline/{RUN}/CuratedSchema/schema"
    schema.mkdir(parents=True)
    (schema / "schema.pbtxt").write_text("curated")
    spec = {**SCHEMA_SPEC, "parameters": {"note": {"parameterType": "STRING"}}}
    argv = [
        *("--executor_class_path", "tests.components.steps.probe.Executor"),
        *("--json_serialized_invocation_args", json.dumps(message)),
        *("--json_serialized_inputs_spec_args", json.dumps(spec)),
    ]
    with processes.start(_run_probe, tmp_path / "staged", argv=argv, modules=processes.PIPELINE) as process:
        process.wait(180)
    return process


def _run_probe(staged):
    from tests.components.steps import probe

    probe.run(staged)


@pytest.mark.slow
def test_tfx_runs_an_executor_on_staged_paths_and_the_process_ends_cleanly(tmp_path):
    done = run_probe(tmp_path, "as it was")
    assert done.returncode == 0, done.stderr
    seen = tmp_path / f"staged/mlpipeline/{RUN}/Probe/anomalies/seen"
    assert seen.read_text() == "Schema curated as it was"
    message = json.loads((tmp_path / "kfp_outputs/output_metadata.json").read_text())
    (artifact,) = message["artifacts"]["anomalies"]["artifacts"]
    assert artifact["uri"] == f"minio://mlpipeline/{RUN}/Probe/anomalies"
    assert artifact["metadata"]["found"] == 0


@pytest.mark.slow
def test_an_expected_error_is_one_line_and_an_exit_status(tmp_path):
    done = run_probe(tmp_path, "refuse")
    assert done.returncode == attempts.INPUT_ERROR
    assert "error: the note is 'refuse'; give another" in done.stderr.splitlines()
    assert not (tmp_path / "kfp_outputs/output_metadata.json").exists()


def run_step(package, step, folder, version):
    service = step_services.Kubeflow(package, folder, version)
    entrypoint._STAGED = service.staging()
    message = service.run(step)
    kept = {name for _, name in service.artifacts}
    assert kept == {"schema", step_services.LOGS}
    (logs,) = message["outputs"]["artifacts"][step_services.LOGS]["artifacts"]
    assert service.stored(logs["uri"]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.5.0", "2.15.0", "2.17.0"])
def test_the_launchers_own_output_is_passed_over(compiled, tmp_path, version):
    package = compiled.pipeline("local.yaml")
    arguments = (package, "CuratedSchema", tmp_path, version)
    with processes.start(run_step, *arguments, modules=processes.PIPELINE) as done:
        done.wait(180)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.5.0", "2.15.0", "2.17.0"])
def test_every_step_is_left_its_own_outputs_alone(compiled, tmp_path, version):
    package = compiled.pipeline("local.yaml")
    for step, component in package["components"].items():
        service = step_services.Kubeflow(package, tmp_path, version)
        artifacts = service.output_artifacts(
            component.get("outputDefinitions", {}).get("artifacts", {}), f"{service.root}/{step}"
        )
        message = {"outputs": {"artifacts": artifacts}}
        assert step_services.LOGS in artifacts
        remote = entrypoint.localize(message, {})
        assert set(message["outputs"]["artifacts"]) == set(artifacts) - {step_services.LOGS}
        assert len(remote) == len(artifacts) - 1


def test_an_output_without_a_type_is_passed_over():
    message = executor_input("minio://")
    message["outputs"]["artifacts"]["new"] = {"artifacts": [{"uri": f"minio://mlpipeline/{RUN}/new"}]}
    entrypoint.localize(message, SCHEMA_SPEC)
    assert set(message["outputs"]["artifacts"]) == {"anomalies"}


def test_uris_are_kept_on_vertex_ai():
    message = executor_input("gs://")
    remote = entrypoint.localize(message, SCHEMA_SPEC, keep_uris=True)
    uri = f"gs://mlpipeline/{RUN}/Probe/anomalies"
    assert message["outputs"]["artifacts"]["anomalies"]["artifacts"][0]["uri"] == uri
    assert message["inputs"]["artifacts"]["schema"]["artifacts"][0]["uri"].startswith("gs://")
    assert remote == {uri: uri}


@pytest.mark.slow
def test_the_endpoint_pusher_of_a_compiled_package_starts(compiled, tmp_path):
    """Its executor runs, and deploys nothing because nothing was published."""
    package = compiled.pipeline("paper.json")
    step = package["components"]["EndpointPusher"]
    container = packages.containers(package)["EndpointPusher"]
    constants = package["root"]["dag"]["tasks"]["EndpointPusher"]["inputs"]["parameters"]
    message = {
        "inputs": {
            "artifacts": packages.artifact_lists(step["inputDefinitions"], tmp_path / "in"),
            "parameterValues": {name: value["runtimeValue"]["constant"] for name, value in constants.items()},
        },
        "outputs": {
            "artifacts": packages.artifact_lists(step["outputDefinitions"], tmp_path / "out"),
            "outputFile": str(tmp_path / "executor_output.json"),
        },
    }
    pushed = tmp_path / "in/pushed_model"
    pushed.mkdir(parents=True)
    (pushed / RECORD_FILE).write_text(json.dumps({"pushed": False, "path": None}))
    arguments = [json.dumps(message) if argument == "{{$}}" else argument for argument in container["args"]]
    with processes.start(entrypoint.run, argv=arguments, modules=processes.PIPELINE) as done:
        done.wait(180)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/deployment/deployment.json").read_text()) == {"deployed": False}
    (deployment,) = json.loads((tmp_path / "executor_output.json").read_text())["artifacts"]["deployment"]["artifacts"]
    assert deployment["metadata"]["deployed"] == 0


def test_tensorflow_reads_what_a_step_sets_unless_it_is_set(monkeypatch):
    """By default TensorFlow reads 64 MiB of a bucket for each record; only `marco train` had changed that."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("GCS_READAHEAD_BUFFER_SIZE_BYTES", "of this machine")
    monkeypatch.delenv("GCS_READAHEAD_BUFFER_SIZE_BYTES")
    seen = []
    monkeypatch.setattr(entrypoint, "main", lambda arguments: seen.append(dict(os.environ)))
    monkeypatch.setattr(os, "_exit", lambda status: None)
    entrypoint.run()
    assert seen[0]["GCS_READAHEAD_BUFFER_SIZE_BYTES"] == "65536"
    assert seen[0]["TF_ENABLE_ONEDNN_OPTS"] == "0"
