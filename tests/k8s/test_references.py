"""Every name and selector in the manifests refers to something, and k8s/ agrees with site.yaml and the defaults."""

from __future__ import annotations

import pytest
import yaml

from components.machines import Replicas
from tests.k8s import network, references, rendering


@pytest.fixture
def secrets() -> dict[str, set[str]]:
    text = (rendering.K8S / "README.md").read_text()
    made_by_kubeflow = {name: set(keys) for name, keys in network.kubeflow()["secrets"].items()}
    return references.secrets_to_make(text) | made_by_kubeflow


def test_the_secrets_to_make(secrets):
    assert secrets == {
        "marco-postgres": {"username", "password"},
        "marco-object-store": {"artifacts", "endpoint", "access-key", "secret-key"},
        "marco-registry": set(),
        "mlpipeline-minio-artifact": {"accesskey", "secretkey"},
    }


def test_every_name_exists(objects, secrets):
    assert references.missing(objects, secrets) == []


def test_every_selector_matches_a_pod(objects):
    assert references.idle_selectors(objects) == []


def _first(item):
    return item["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        (
            "Deployment",
            lambda item: item["spec"]["template"]["spec"].update(serviceAccountName="nobody"),
            "Deployment/mlflow: no ServiceAccount nobody",
        ),
        (
            "StatefulSet",
            lambda item: _first(item)["env"].append(
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "marco-postgres", "key": "user"}}}
            ),
            "StatefulSet/postgres: no Secret key marco-postgres user",
        ),
        (
            "Deployment",
            lambda item: _first(item).update(envFrom=[{"configMapRef": {"name": "settings"}}]),
            "Deployment/mlflow: no ConfigMap settings",
        ),
        (
            "Deployment",
            lambda item: item["spec"]["template"]["spec"]["volumes"].append(
                {"name": "a", "persistentVolumeClaim": {"claimName": "shared"}}
            ),
            "Deployment/mlflow: no PersistentVolumeClaim shared",
        ),
        (
            "InferenceService",
            lambda item: item["spec"]["predictor"]["model"].update(storageUri="pvc://models/marco"),
            "InferenceService/marco: no PersistentVolumeClaim models",
        ),
        (
            "InferenceService",
            lambda item: item["spec"]["predictor"].update(priorityClassName="first"),
            "InferenceService/marco: no PriorityClass first",
        ),
        (
            "RoleBinding",
            lambda item: item["subjects"][0].update(name="default"),
            "RoleBinding/marco-pipeline: no ServiceAccount default",
        ),
    ],
)
def test_a_name_that_does_not_exist_is_reported(base, secrets, kind, change, problem):
    change(rendering.pick(base, kind))
    assert references.missing(base, secrets) == [problem]


@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy", "PodDisruptionBudget"])
def test_an_idle_selector_is_reported(base, kind):
    item = rendering.pick(base, kind, "mlflow")
    field = "podSelector" if kind == "NetworkPolicy" else "selector"
    item["spec"][field] = {"app": "none"} if kind == "Service" else {"matchLabels": {"app": "none"}}
    assert [
        what
        for what in references.idle_selectors(base)
        if "matches no pod" in what and what.startswith(f"{kind}/mlflow")
    ]


def test_a_port_that_no_pod_has_is_reported(base):
    rendering.pick(base, "Service", "mlflow")["spec"]["ports"][0]["targetPort"] = "web"
    assert references.idle_selectors(base) == ["Service/mlflow: no pod has the port web"]


def test_the_site_file_fits(base, secrets):
    pick = rendering.pick
    site = yaml.safe_load((rendering.K8S / "site.yaml").read_text())
    for volume in site["cluster"]["volumes"]:
        pick(base, "PersistentVolumeClaim", volume["claim"])
    for secret in site["cluster"].get("secrets", []):
        assert set(secret["variables"].values()) <= secrets[secret["name"]]
    assert site["tracking"]["uri"] == f"http://mlflow:{pick(base, 'Service', 'mlflow')['spec']['ports'][0]['port']}"
    # The model server reads the folder to which the Pusher publishes.
    (volume,) = site["cluster"]["volumes"]
    served = f"{site['cluster']['shared']}/models".removeprefix(volume["path"])
    model = pick(base, "InferenceService")["spec"]["predictor"]["model"]
    assert model["storageUri"] == f"pvc://{volume['claim']}{served}"


def test_the_model_server_watches_the_folder_to_which_the_pusher_publishes(objects):
    model = rendering.pick(objects, "InferenceService")["spec"]["predictor"]["model"]
    arguments = rendering.pick(objects, "ServingRuntime")["spec"]["containers"][0]["args"]
    (base_path,) = (argument.partition("=")[2] for argument in arguments if argument.startswith("--model_base_path="))
    # KServe mounts a claim; anything else it copies once, at the start.
    if base_path == "/mnt/models":
        assert model["storageUri"].startswith("pvc://")
    else:
        assert base_path.startswith("gs://") and "storageUri" not in model


def test_the_small_overlays_artifacts_are_where_the_profiles_keys_reach():
    pod = rendering.pick(rendering.render("overlays/small"), "Deployment", "mlflow")["spec"]["template"]["spec"]
    variables = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
    store, services = network.kubeflow()["object_store"], network.kubeflow()["services"]
    bucket, _, path = variables["MLFLOW_ARTIFACTS_DESTINATION"].removeprefix("s3://").partition("/")
    assert bucket == store["bucket"]
    assert any(f"{path}/".startswith(prefix) for prefix in store["prefixes"])
    service, port = variables["MLFLOW_S3_ENDPOINT_URL"].removeprefix("http://").split(":")
    assert int(port) in services[service.removesuffix(".kubeflow")]["ports"]


@pytest.mark.parametrize("account", ["marco-pipeline", "marco-training", "marco-serving", "marco-monitoring"])
def test_pods_of_the_projects_image_can_log_in_to_its_registry(monitored, account):
    assert rendering.pick(monitored, "ServiceAccount", account)["imagePullSecrets"] == [{"name": "marco-registry"}]


def test_the_model_server_is_not_restarted_while_it_waits_for_a_first_model(base):
    probe = rendering.pick(base, "InferenceService")["spec"]["predictor"]["model"]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 7 * 24 * 3600


def test_only_one_mlflow_makes_the_tables(objects):
    assert rendering.pick(objects, "Deployment", "mlflow")["spec"]["replicas"] == 1


def test_the_account_of_the_replicas_exists(base):
    account = rendering.pick(base, "ServiceAccount", Replicas().service_account)
    assert account["automountServiceAccountToken"] is False
