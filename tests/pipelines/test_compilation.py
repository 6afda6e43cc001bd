"""Every preset's package, as Kubeflow Pipelines would get it."""

import importlib.util
import json
import re

import pytest
import yaml

from components.champion import signature
from components.steps import cluster_data
from marco_model.errors import InputError
from pipelines import compilation, configuration
from tests import packages
from tests.packages import containers, tasks
from tests.pipelines import kubeflow_cache

pytestmark = pytest.mark.slow
ID = r"[a-zA-Z0-9][-a-zA-Z0-9]*"


# The package of each preset, as `describe` reads it.
EXPECTED = {
    "finetune": {
        "pipeline": "marco-finetune",
        "data": ("gs://bucket/runs/data", None, "released"),
        "max_quarantined": 0.05,
        "shorter_side": 0,
        "network": ("released", 599, 1.0),
        "recipe": (30, 16, 0.004),
        "engine": "one_device",
        "thresholds": {"accuracy": 0.7, "recall/Crystals": 0.7},
        "gate": ("marco", 0.95, 0.01),
        "trainer": (6.0, "1", "4Gi"),
    },
    "gpu": {
        "pipeline": "marco-gpu",
        "data": ("gs://bucket/runs/data", None, "random"),
        "max_quarantined": 0.001,
        "shorter_side": 0,
        "network": ("paper", 599, 1.0),
        "recipe": (1_700_000, 256, 0.045),
        "engine": "mirrored",
        "thresholds": {"accuracy": 0.94, "recall/Crystals": 0.9},
        "gate": ("marco", 0.95, 0.01),
        "trainer": (16.0, "1", "16Gi"),
    },
    "local": {
        "pipeline": "marco-local",
        "data": ("gs://bucket/runs/synthetic", 1600, "random"),
        "max_quarantined": 0.01,
        "shorter_side": 168,
        "network": ("paper", 155, 0.4),
        "recipe": (700, 32, 0.0003),
        "engine": "one_device",
        "thresholds": {"accuracy": 0.65, "recall/Crystals": 0.4},
        "gate": ("marco-local", 0.95, 0.01),
        "trainer": (2.0, "0", "0"),
    },
    "paper": {
        "pipeline": "marco-paper",
        "data": ("gs://bucket/runs/data", None, "random"),
        "max_quarantined": 0.001,
        "shorter_side": 0,
        "network": ("paper", 599, 1.0),
        "recipe": (1_700_000, 64, 0.045),
        "engine": "mirrored",
        "thresholds": {"accuracy": 0.94, "recall/Crystals": 0.9},
        "gate": ("marco", 0.95, 0.01),
        "trainer": (24.0, "4", "16Gi"),
    },
    "scratch": {
        "pipeline": "marco-scratch",
        "data": ("gs://bucket/runs/synthetic", 2000, "random"),
        "max_quarantined": 0.01,
        "shorter_side": 168,
        "network": ("paper", 155, 0.4),
        "recipe": (3500, 32, 0.0005),
        "engine": "one_device",
        "thresholds": {"accuracy": 0.9, "recall/Crystals": 0.8},
        "gate": ("marco", 0.95, 0.01),
        "trainer": (2.0, "0", "0"),
    },
}
# The inputs of each step that are not artifacts, and the types of its output artifacts.
STEPS = {
    "MarcoExampleGen": (
        {"input_uri", "fingerprint", "options", "layout"},
        {"examples": "tfx.Examples", "quarantine": "components.Quarantine"},
    ),
    "StatisticsGen": ({"stats_options_json", "exclude_splits"}, {"statistics": "tfx.ExampleStatistics"}),
    "CuratedSchema": ({"fingerprint", "classes"}, {"schema": "tfx.Schema"}),
    "ExampleValidator": ({"exclude_splits"}, {"anomalies": "tfx.ExampleAnomalies"}),
    "Transform": (
        {"preprocessing_fn", "custom_config", "disable_statistics", "force_tf_compat_v1"},
        {"transform_graph": "tfx.TransformGraph", "updated_analyzer_cache": "tfx.TransformCache"},
    ),
    "Materializer": (set(), {"transformed_examples": "tfx.Examples"}),
    "Trainer": ({"training", "source", "fingerprint", "initial", "steps"}, {"model": "tfx.Model"}),
    "Evaluator": (
        {"thresholds", "classes", "average"},
        {"evaluation": "tfx.ModelEvaluation", "blessing": "tfx.ModelBlessing"},
    ),
    "ChampionGate": (
        {"champion", "registered_model", "initial", "rules", "classes"},
        {"blessing": "tfx.ModelBlessing", "decision": "components.Decision"},
    ),
    "Pusher": (
        {"destination", "registered_model", "run_label", "run_name", "note", "judged_against", "signature"},
        {"pushed_model": "tfx.PushedModel"},
    ),
    "Report": ({"options", "data_fingerprint", "synthetic"}, {"report": "components.Report"}),
    "Data": ({"data", "steps"}, {}),
}


@pytest.fixture(scope="module", params=packages.KUBEFLOW)
def preset(request):
    return request.param


@pytest.fixture
def documents(preset, compiled):
    return compiled.documents(f"{preset}.yaml")


@pytest.fixture
def package(documents):
    return documents[0]


@pytest.fixture
def platform(documents):
    return documents[1]


def describe(package, platform):
    """Returns the values of EXPECTED, each from where a step or Kubeflow reads it."""
    arguments = containers(package)["Data"]["args"]
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    training = packages.constants(package, "Trainer")["training"]
    network, recipe = training["network"], training["recipe"]
    gate = packages.constants(package, "ChampionGate")
    resources = containers(package)["Trainer"]["resources"]
    trainer = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["Trainer_executor"]
    shared_memory = [mount["sizeLimit"] for mount in trainer.get("emptyDirMounts", [])]
    return {
        "pipeline": package["pipelineInfo"]["name"],
        "data": (options["--place"], (json.loads(options["--synthetic"]) or {}).get("images"), options["--initial"]),
        "max_quarantined": packages.constants(package, "MarcoExampleGen")["options"]["max_quarantined"],
        "shorter_side": packages.constants(package, "Transform")["custom_config"]["shorter_side"],
        "network": (network["variant"], network["input_size"], network["depth_multiplier"]),
        "recipe": (recipe["steps"], recipe["batch_size"], recipe["learning_rate"]),
        "engine": training["engine"]["kind"],
        "thresholds": packages.constants(package, "Evaluator")["thresholds"],
        "gate": (gate["registered_model"], gate["rules"]["confidence"], gate["rules"]["recall_margin"]),
        "trainer": (
            resources["cpuLimit"],
            resources.get("accelerator", {}).get("count", "0"),
            shared_memory[0] if shared_memory else "0",
        ),
    }


def test_a_preset_reaches_the_steps(preset, package, platform):
    assert describe(package, platform) == EXPECTED[preset]
    training = packages.constants(package, "Trainer")["training"]
    # The options of Transform and those of the network agree about the images.
    assert training["transform"] == packages.constants(package, "Transform")["custom_config"]
    assert training["checkpoints"] == f"{packages.ROOT}/checkpoints"
    assert packages.constants(package, "Pusher")["destination"] == f"{packages.ROOT}/models"


def test_a_step_takes_and_leaves_what_is_listed(package, preset):
    found = {}
    for name in tasks(package):
        component = package["components"][name]
        artifacts = component["outputDefinitions"].get("artifacts", {}).items()
        titles = {key: yaml.safe_load(kind["artifactType"]["instanceSchema"])["title"] for key, kind in artifacts}
        found[name] = set(component.get("inputDefinitions", {}).get("parameters", {})), titles
    # Where images are not shrunk, training reads MarcoExampleGen's own files.
    omitted = set() if EXPECTED[preset]["shorter_side"] else {"Materializer"}
    assert found == {name: step for name, step in STEPS.items() if name not in omitted}


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


# The fields of kfp-kubernetes's KubernetesExecutorConfig that may be in the platform document, with their types.
PLATFORM_FIELDS = {
    "fieldPathAsEnv": [{"name": str, "fieldPath": str}],
    "podMetadata": {"labels": dict},
    "nodeSelector": {"labels": dict},
    "tolerations": [{"key": str, "operator": str, "value": str, "effect": str}],
    "emptyDirMounts": [{"volumeName": str, "mountPath": str, "medium": str, "sizeLimit": str}],
    "pvcMount": [{"constant": str, "mountPath": str}],
    "secretAsEnv": [{"secretName": str, "keyToEnv": [{"secretKey": str, "envVar": str}]}],
    "secretAsVolume": [{"secretName": str, "mountPath": str}],
}


def fits(value, shape):
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(key in shape and fits(value[key], shape[key]) for key in value)
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    return isinstance(value, shape)


def test_kfp_kubernetes_own_messages_hold_the_platform_document(package, platform):
    """Of the messages themselves wherever kfp-kubernetes installs: beside TFX 1.16 it does not (protobuf 3)."""
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(package["deploymentSpec"]["executors"])
    for config in executors.values():
        assert fits(config, PLATFORM_FIELDS), config
        assert {field["name"] for field in config["fieldPathAsEnv"]} >= {"MARCO_POD_NAME", "MARCO_POD_UID"}
    if importlib.util.find_spec("kfp.kubernetes"):
        from google.protobuf import json_format
        from kfp.kubernetes import kubernetes_executor_config_pb2 as messages

        known = {field.json_name for field in messages.KubernetesExecutorConfig.DESCRIPTOR.fields}
        assert set(PLATFORM_FIELDS) <= known
        for config in executors.values():
            read = json_format.ParseDict(config, messages.KubernetesExecutorConfig())
            assert {field.name for field in read.field_path_as_env} >= {"MARCO_POD_NAME", "MARCO_POD_UID"}


def test_artifacts_lie_below_the_root_or_in_kubeflows_own_store(package, tmp_path):
    assert package["defaultPipelineRoot"] == f"{packages.ROOT}/pipeline"
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
        assert container["image"] == packages.IMAGE
        module = "cluster_data" if name == "Data" else "entrypoint"
        assert container["command"][-1] == f"components.steps.{module}"


def test_every_input_has_its_producer(package, preset):
    shrunk = EXPECTED[preset]["shorter_side"] > 0
    expected = {
        "Materializer": {"MarcoExampleGen", "Transform"},
        "StatisticsGen": {"MarcoExampleGen"},
        "ExampleValidator": {"StatisticsGen", "CuratedSchema"},
        "Transform": {"MarcoExampleGen", "CuratedSchema"},
        "Trainer": {"Transform", "Materializer" if shrunk else "MarcoExampleGen"},
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


def test_parameters_of_a_schedule_default_to_the_presets_values(package):
    parameters = package["root"]["inputDefinitions"]["parameters"]
    assert {name: parameter["defaultValue"] for name, parameter in parameters.items()} == {
        "data": packages.DATA,
        "steps": "",
        "run_label": "",
        "run_name": "",
        "note": "",
    }
    taken = {
        (name, parameter): source["componentInputParameter"]
        for name, task in tasks(package).items()
        for parameter, source in task.get("inputs", {}).get("parameters", {}).items()
        if "componentInputParameter" in source
    }
    assert taken == {
        ("Data", "data"): "data",
        ("Data", "steps"): "steps",
        ("Trainer", "steps"): "steps",
        ("Pusher", "run_label"): "run_label",
        ("Pusher", "run_name"): "run_name",
        ("Pusher", "note"): "note",
    }


def test_every_step_is_retried_and_all_but_the_look_at_the_data_are_cached(package):
    for name, task in tasks(package).items():
        policy = {"maxRetryCount": 2, "backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "2592000s"}
        assert task["retryPolicy"] == policy
        container = containers(package)[name]
        module = "cluster_data" if name == "Data" else "entrypoint"
        assert container["command"] == ["python", "-m", "components.steps.attempts", f"components.steps.{module}"]
        assert {"name": "MARCO_RETRIES", "value": "2"} in container["env"]
        assert task["cachingOptions"]["enableCache"] is (name != "Data")


def test_no_runtime_parameter_and_no_path_of_this_machine_is_frozen_into_text(documents):
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
def site(tmp_path_factory):
    """The package of the preset local for a cluster with volumes, secrets and GPUs."""
    path = tmp_path_factory.mktemp("site") / "marco.yaml"
    return packages.write_package("local", path, CLUSTER, "engine.kind=multi_worker")


def test_resources_and_environment_are_the_configurations(site):
    steps = containers(site[0])
    assert steps["Trainer"]["resources"] == {
        "cpuLimit": 8.0,
        "cpuRequest": 8.0,
        "memoryLimit": pytest.approx(34.359738368),
        "memoryRequest": pytest.approx(34.359738368),
        "accelerator": {"type": "nvidia.com/gpu", "count": "2"},
    }
    assert (steps["Pusher"]["resources"]["cpuLimit"], steps["Pusher"]["resources"]["memoryLimit"]) == (1.5, 2.0)
    assert all(
        step["env"][1:] == [{"name": "MLFLOW_S3_ENDPOINT_URL", "value": "http://store:9000"}] for step in steps.values()
    )
    assert all("retryPolicy" not in task for task in tasks(site[0]).values())


def test_the_second_document_has_the_settings_of_kubernetes(site):
    executors = site[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
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


def test_a_secret_is_named_and_its_value_is_nowhere(site):
    package, platform = site
    for name, container in containers(package).items():
        assert {variable["name"] for variable in container["env"]} == {"MARCO_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL"}
        (variables,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"{name}_executor"][
            "secretAsEnv"
        ]
        assert set(variables) == {"secretName", "keyToEnv"}
        assert all(set(variable) == {"secretKey", "envVar"} for variable in variables["keyToEnv"])


def test_files_that_outlive_a_step_are_on_the_volume_that_a_training_on_several_nodes_mounts(site):
    config = packages.constants(site[0], "Trainer")["training"]
    assert config["checkpoints"] == "/shared/marco/checkpoints"
    assert config["placement"]["replicas"]["workers"] == 4
    assert config["placement"]["replicas"]["worker"]["accelerators"] == 8


SMALL = {"images": 8, "seed": 3, "eval_share": 0.25, "shorter_side": 48, "label_noise": 0.0}


def test_unchanged_data_are_reused_from_the_first_step_on_and_changed_data_are_not(site, tmp_path):
    def keys(champion="", **values):
        data = cluster_data.describe(str(tmp_path / "data"), "random", None, "")
        data |= {"champion": champion, "signature": signature("settings", data["fingerprint"], "random", "")}
        return kubeflow_cache.cache_keys(site[0], values, {"Data": data})

    cluster_data.describe("", "random", SMALL, str(tmp_path / "data"))
    first = keys(run_label="monday")
    assert set(first) == set(tasks(site[0])) - {"Data"}
    assert keys(run_label="monday") == first

    def differ(keys, other):
        return {name for name in keys if keys[name] != other[name]}

    assert differ(keys(run_label="tuesday"), first) == {"Pusher"}
    assert differ(keys(run_label="monday", run_name="a", note="b"), first) == {"Pusher"}
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
