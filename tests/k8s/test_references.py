"""Names and selectors in the manifests lead somewhere; what k8s/ sets up fits the site's file and the defaults."""

from __future__ import annotations

import pytest
import yaml

from components.machines import Replicas


@pytest.fixture
def secrets(beside) -> dict[str, set[str]]:
    text = (beside("rendering").K8S / "README.md").read_text()
    return beside("references").secrets_to_make(text)


@pytest.fixture
def missing(beside, secrets):
    return lambda objects: beside("references").missing(objects, beside("rendering").pods, secrets)


@pytest.fixture
def idle(beside):
    return lambda objects: beside("references").idle_selectors(
        objects, beside("rendering").pods, beside("network").matches
    )


def test_the_secrets_to_make(secrets):
    assert secrets == {
        "marco-postgres": {"username", "password"},
        "marco-object-store": {"artifacts", "endpoint", "access-key", "secret-key"},
    }


def test_every_name_leads_somewhere(objects, missing):
    assert missing(objects) == []


def test_every_selector_takes_in_a_pod(objects, idle):
    assert idle(objects) == []


def _first(item):
    return item["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("kind", "change", "found"),
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
def test_a_name_that_leads_nowhere_is_found(base, beside, missing, kind, change, found):
    change(beside("rendering").pick(base, kind))
    assert missing(base) == [found]


@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy", "PodDisruptionBudget"])
def test_an_idle_selector_is_found(base, beside, idle, kind):
    item = beside("rendering").pick(base, kind, "mlflow")
    field = "podSelector" if kind == "NetworkPolicy" else "selector"
    item["spec"][field] = {"app": "none"} if kind == "Service" else {"matchLabels": {"app": "none"}}
    assert [what for what in idle(base) if "matches no pod" in what and what.startswith(f"{kind}/mlflow")]


def test_a_port_that_no_pod_has_is_found(base, beside, idle):
    beside("rendering").pick(base, "Service", "mlflow")["spec"]["ports"][0]["targetPort"] = "web"
    assert idle(base) == ["Service/mlflow: no pod has the port web"]


def test_the_site_file_fits(base, beside, secrets):
    pick, k8s = beside("rendering").pick, beside("rendering").K8S
    site = yaml.safe_load((k8s / "site.yaml").read_text())
    for volume in site["cluster"]["volumes"]:
        pick(base, "PersistentVolumeClaim", volume["claim"])
    for secret in site["cluster"].get("secrets", []):
        assert set(secret["variables"].values()) <= secrets[secret["name"]]
    assert site["tracking"]["uri"] == f"http://mlflow:{pick(base, 'Service', 'mlflow')['spec']['ports'][0]['port']}"
    # Where the model server looks is where the Pusher publishes.
    (volume,) = site["cluster"]["volumes"]
    served = f"{site['cluster']['shared']}/models".removeprefix(volume["path"])
    model = pick(base, "InferenceService")["spec"]["predictor"]["model"]
    assert model["storageUri"] == f"pvc://{volume['claim']}{served}"


def test_the_model_server_looks_for_new_versions_where_the_pusher_puts_them(objects, beside):
    model = beside("rendering").pick(objects, "InferenceService")["spec"]["predictor"]["model"]
    arguments = beside("rendering").pick(objects, "ServingRuntime")["spec"]["containers"][0]["args"]
    (base_path,) = (one.partition("=")[2] for one in arguments if one.startswith("--model_base_path="))
    # KServe mounts a claim; of anything else it makes a copy once.
    if base_path == "/mnt/models":
        assert model["storageUri"].startswith("pvc://")
    else:
        assert base_path.startswith("gs://") and "storageUri" not in model


def test_the_account_of_the_replicas_is_there(base, beside):
    account = beside("rendering").pick(base, "ServiceAccount", Replicas().service_account)
    assert account["automountServiceAccountToken"] is False
