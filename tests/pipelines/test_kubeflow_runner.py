"""Every preset's package, as Kubeflow Pipelines would be given it."""

import re

import pytest
import yaml

from components.champion import signature
from components.steps import cluster_data
from marco_model.errors import InputError
from pipelines import compilation, configuration
from tests.pipelines import golden, kubeflow_cache

pytestmark = pytest.mark.slow
ID = r"[a-zA-Z0-9][-a-zA-Z0-9]*"


@pytest.fixture(scope="module", params=configuration.preset_names())
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def documents(preset, tmp_path_factory):
    return golden.compile_preset(preset, tmp_path_factory.mktemp("package") / "marco.yaml")


@pytest.fixture
def package(documents):
    return documents[0]


@pytest.fixture
def platform(documents):
    return documents[1]


def tasks(package):
    return package["root"]["dag"]["tasks"]


def containers(package):
    return {name: package["deploymentSpec"]["executors"][f"{name}_executor"]["container"] for name in tasks(package)}


def test_the_package_is_the_one_that_is_kept(preset, documents):
    kept = list(yaml.safe_load_all((golden.PACKAGES / f"{preset}.yaml").read_text()))
    assert golden.alike(documents) == golden.alike(kept), "run python tests/pipelines/golden.py if this is meant"


def test_kfps_own_messages_hold_the_package(package):
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    spec = json_format.ParseDict(package, pipeline_spec_pb2.PipelineSpec())
    assert spec.schema_version == "2.1.0"
    assert set(spec.root.dag.tasks) == set(tasks(package))
    deployment = json_format.ParseDict(package["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    for executor in deployment.executors.values():
        assert executor.container.resources.cpu_limit > 0
        assert executor.container.resources.memory_limit > 0


def test_kfp_kubernetes_own_messages_hold_the_platform_document(package, platform):
    json_format = pytest.importorskip("google.protobuf.json_format")
    messages = pytest.importorskip("kfp.kubernetes.kubernetes_executor_config_pb2", reason="the modern runtime has it")
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(package["deploymentSpec"]["executors"])
    for config in executors.values():
        read = json_format.ParseDict(config, messages.KubernetesExecutorConfig())
        assert {one.name for one in read.field_path_as_env} >= {"MARCO_POD_NAME", "MARCO_POD_UID"}


def test_artifacts_lie_below_the_root_or_in_kubeflows_own_store(package, tmp_path):
    assert package["defaultPipelineRoot"] == f"{golden.ROOT}/pipeline"
    compilation.compile_for_kubeflow(configuration.load("local"), "/shared", tmp_path / "marco.yaml")
    mounted, _ = yaml.safe_load_all((tmp_path / "marco.yaml").read_text())
    assert "defaultPipelineRoot" not in mounted


def test_names_are_what_kubeflow_accepts(package):
    assert package["schemaVersion"] == "2.1.0"
    assert re.fullmatch(ID, package["pipelineInfo"]["name"])
    assert all(re.fullmatch(ID, name) for name in tasks(package))


def test_every_step_runs_our_image_by_our_entrypoint_and_none_is_a_resolver(package):
    executors = package["deploymentSpec"]["executors"]
    assert set(executors) == {f"{name}_executor" for name in tasks(package)}
    assert all(set(executor) == {"container"} for executor in executors.values())
    for name, container in containers(package).items():
        assert container["image"] == golden.IMAGE
        module = "cluster_data" if name == "Data" else "entrypoint"
        assert container["command"] == ["python", "-m", f"components.steps.{module}"]


def test_every_input_has_its_producer(package):
    expected = {
        "StatisticsGen": {"MarcoExampleGen"},
        "ExampleValidator": {"StatisticsGen", "CuratedSchema"},
        "Transform": {"MarcoExampleGen", "CuratedSchema"},
        "Trainer": {"Transform"},
        "Evaluator": {"MarcoExampleGen", "Trainer"},
        "ChampionGate": {"MarcoExampleGen", "Trainer", "Evaluator"},
        "Report": {"MarcoExampleGen", "Trainer", "Evaluator", "ChampionGate"},
        "Pusher": {"Trainer", "ChampionGate"},
    }
    for name, task in tasks(package).items():
        artifacts = task.get("inputs", {}).get("artifacts", {})
        sources = {source["taskOutputArtifact"]["producerTask"] for source in artifacts.values()}
        assert sources == expected.get(name, set())
        for source in artifacts.values():
            produced = source["taskOutputArtifact"]
            assert produced["outputArtifactKey"] in outputs(package, produced["producerTask"])["artifacts"]
        for parameter in task.get("inputs", {}).get("parameters", {}).values():
            if "taskOutputParameter" in parameter:
                produced = parameter["taskOutputParameter"]
                assert produced["outputParameterKey"] in outputs(package, produced["producerTask"])["parameters"]
                assert produced["producerTask"] in task["dependentTasks"]
            elif "componentInputParameter" in parameter:
                assert parameter["componentInputParameter"] in package["root"]["inputDefinitions"]["parameters"]


def outputs(package, task):
    return package["components"][tasks(package)[task]["componentRef"]["name"]]["outputDefinitions"]


def test_training_waits_for_the_gate(package):
    assert "ExampleValidator" in tasks(package)["Transform"]["dependentTasks"]


def test_what_a_schedule_changes_are_parameters_with_the_presets_values(package):
    parameters = package["root"]["inputDefinitions"]["parameters"]
    assert {name: one["defaultValue"] for name, one in parameters.items()} == {
        "data": golden.DATA,
        "steps": "",
        "run_label": "",
    }
    taken = {
        (name, of): one["componentInputParameter"]
        for name, task in tasks(package).items()
        for of, one in task.get("inputs", {}).get("parameters", {}).items()
        if "componentInputParameter" in one
    }
    assert taken == {
        ("Data", "data"): "data",
        ("Data", "steps"): "steps",
        ("Trainer", "steps"): "steps",
        ("Pusher", "run_label"): "run_label",
    }


def test_every_step_is_retried_and_all_but_the_look_at_the_data_are_cached(package):
    for name, task in tasks(package).items():
        assert task["retryPolicy"]["maxRetryCount"] == 2
        assert task["cachingOptions"]["enableCache"] is (name != "Data")


def test_no_runtime_parameter_is_frozen_into_text_and_no_path_of_this_machine(documents):
    text = yaml.safe_dump_all(documents)
    assert "RuntimeParameter" not in text
    assert str(configuration.PRESETS.parent.parent) not in text


CLUSTER = """cluster={
  image: registry.example/marco@sha256:00, shared: /shared/marco,
  volumes: [{claim: marco-shared, path: /shared}],
  secrets: [{name: store, variables: {AWS_SECRET_ACCESS_KEY: secret-key}}, {name: ca, path: /etc/ca}],
  environment: {MLFLOW_S3_ENDPOINT_URL: "http://store:9000"}, retries: 0,
  default: {cpu: 1.5, memory: 2G},
  steps: {Trainer: {cpu: 8, memory: 32Gi, accelerators: 2, shared_memory: 8Gi, node_selector: {pool: gpu},
    tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}]}},
  replicas: {workers: 4, worker: {accelerators: 8}}}"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return golden.compile_preset(
        "local", tmp_path_factory.mktemp("given") / "marco.yaml", CLUSTER, "engine.kind=multi_worker"
    )


def test_resources_and_environment_are_the_configurations(given):
    wanted = containers(given[0])
    assert wanted["Trainer"]["resources"] == {
        "cpuLimit": 8.0,
        "cpuRequest": 8.0,
        "memoryLimit": pytest.approx(34.359738368),
        "memoryRequest": pytest.approx(34.359738368),
        "accelerator": {"type": "nvidia.com/gpu", "count": "2"},
    }
    assert (wanted["Pusher"]["resources"]["cpuLimit"], wanted["Pusher"]["resources"]["memoryLimit"]) == (1.5, 2.0)
    assert all(
        one["env"] == [{"name": "MLFLOW_S3_ENDPOINT_URL", "value": "http://store:9000"}] for one in wanted.values()
    )
    assert all("retryPolicy" not in task for task in tasks(given[0]).values())


def test_what_only_kubernetes_knows_is_in_the_second_document(given):
    executors = given[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    trainer = executors["Trainer_executor"]
    assert trainer["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert trainer["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (memory,) = trainer["emptyDirMounts"]
    assert (memory["mountPath"], memory["medium"], memory["sizeLimit"]) == ("/dev/shm", "Memory", "8Gi")
    for config in executors.values():
        assert config["pvcMount"] == [{"constant": "marco-shared", "mountPath": "/shared"}]
        (variables,) = config["secretAsEnv"]
        assert variables["secretName"] == "store"
        assert variables["keyToEnv"] == [{"secretKey": "secret-key", "envVar": "AWS_SECRET_ACCESS_KEY"}]
        assert config["secretAsVolume"] == [{"secretName": "ca", "mountPath": "/etc/ca"}]
    assert "nodeSelector" not in executors["Pusher_executor"]


def test_a_secret_is_named_and_its_value_is_nowhere(given):
    package, platform = given
    for name, container in containers(package).items():
        assert {one["name"] for one in container["env"]} == {"MLFLOW_S3_ENDPOINT_URL"}
        (variables,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"{name}_executor"][
            "secretAsEnv"
        ]
        assert set(variables) == {"secretName", "keyToEnv"}
        assert all(set(one) == {"secretKey", "envVar"} for one in variables["keyToEnv"])


def test_what_outlives_a_step_lies_on_the_volume_and_a_training_on_several_nodes_knows_them(given):
    import json

    constants = tasks(given[0])["Trainer"]["inputs"]["parameters"]["training"]["runtimeValue"]["constant"]
    config = json.loads(constants)
    assert config["checkpoints"] == "/shared/marco/checkpoints"
    assert config["placement"]["replicas"]["workers"] == 4
    assert config["placement"]["replicas"]["worker"]["accelerators"] == 8


SMALL = {"images": 8, "seed": 3, "eval_share": 0.25, "shorter_side": 48, "label_noise": 0.0}


def test_unchanged_data_are_reused_from_the_first_step_on_and_changed_data_are_not(given, tmp_path):
    def keys(champion="", **values):
        told = cluster_data.describe(str(tmp_path / "data"), "random", None, "")
        told |= {"champion": champion, "signature": signature("settings", told["fingerprint"], "random", "")}
        return kubeflow_cache.cache_keys(given[0], values, {"Data": told})

    cluster_data.describe("", "random", SMALL, str(tmp_path / "data"))
    first = keys(run_label="monday")
    assert set(first) == set(tasks(given[0])) - {"Data"}
    assert keys(run_label="monday") == first

    def differ(one, other):
        return {name for name in one if one[name] != other[name]}

    assert differ(keys(run_label="tuesday"), first) == {"Pusher"}
    assert differ(keys(run_label="monday", champion="{}"), first) == {"ChampionGate", "Report", "Pusher"}
    trained = {"Trainer", "Evaluator", "ChampionGate", "Report", "Pusher"}
    assert differ(keys(run_label="monday", steps="20"), first) == trained
    shard = next((tmp_path / "data").glob("train-*"))
    shard.write_bytes(shard.read_bytes() + b"\0")
    assert differ(keys(run_label="monday"), first) == set(first) - {"CuratedSchema"}


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.yaml"):
        compilation.compile_for_kubeflow(configuration.load("local"), "/marco", tmp_path / "marco.json")


def test_a_search_comes_before_the_training_with_the_same_job(tmp_path):
    changes = ["tracking.uri=http://mlflow:5000", "tuning={space: {recipe.momentum: {choices: [0.8, 0.9]}}}"]
    loaded = configuration.load("local", changes)
    compilation.compile_for_kubeflow(loaded, "gs://bucket/runs", tmp_path / "marco.yaml")
    package = next(yaml.safe_load_all((tmp_path / "marco.yaml").read_text()))
    tuner, trainer = tasks(package)["Tuner"], tasks(package)["Trainer"]
    assert tuner["inputs"]["parameters"] == trainer["inputs"]["parameters"]
    assert "Tuner" in trainer["dependentTasks"]
    source = trainer["inputs"]["artifacts"]["hyperparameters"]["taskOutputArtifact"]
    assert source == {"outputArtifactKey": "best_hyperparameters", "producerTask": "Tuner"}
