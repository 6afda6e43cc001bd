"""`marco cluster check --target vertex` against stand-ins for Google Cloud, right and with one fault at a time."""

import json

import pytest
import typer.testing

from marco_model.errors import InputError
from pipelines import cli
from pipelines.cluster_check import needs as package_needs, vertex
from tests.fakes import google_cloud, vertex_api

DIGEST = f"sha256:{'0a' * 32}"
IMAGE = f"europe-west4-docker.pkg.dev/crystals/marco/pipeline@{DIGEST}"
TRAINING = {"tracking": {"uri": "https://mlflow.example.org"}, "data": {"source": ""}}
ENDPOINT = {"name": "marco", "accelerator": "", "accelerators": 0, "min_replicas": 1}


def constant(value):
    return {"runtimeValue": {"constant": json.dumps(value)}}


def package(image=IMAGE, training=TRAINING, endpoint=ENDPOINT):
    container = {"image": image, "resources": {"cpuRequest": 4.0, "memoryRequest": 8.0}}
    gpus = {**container, "resources": {**container["resources"], "accelerator": {"type": "NVIDIA_L4", "count": "4"}}}
    return {
        "defaultPipelineRoot": "gs://bucket/runs/pipeline",
        "root": {
            "dag": {
                "tasks": {
                    "Trainer": {"inputs": {"parameters": {"training": constant(training)}}},
                    "EndpointPusher": {"inputs": {"parameters": {"endpoint": constant(endpoint)}}},
                }
            }
        },
        "deploymentSpec": {
            "executors": {"Trainer_executor": {"container": gpus}, "EndpointPusher_executor": {"container": container}}
        },
    }


@pytest.fixture
def cloud(monkeypatch):
    """Google Cloud, with Vertex AI at `vertex`."""
    with google_cloud.running() as cloud, vertex_api.running() as cloud.vertex:
        cloud.images.add(f"pipeline@{DIGEST}")
        monkeypatch.setattr(vertex, "ADDRESS", f"{cloud.url}/{{service}}")
        yield cloud


@pytest.fixture
def check(cloud, tmp_path):
    """Returns a function that runs the command over a package and returns its exit status and lines."""

    def run(content=None, account=google_cloud.ACCOUNT):
        path = tmp_path / "marco.json"
        path.write_text(json.dumps(content or package()))
        options = [
            "--target",
            "vertex",
            "--project",
            "crystals",
            "--location",
            "europe-west4",
            "--api",
            cloud.vertex.url,
        ]
        options += ["--service-account", account] if account else []
        result = typer.testing.CliRunner().invoke(cli.app, ["cluster", "check", str(path), *options])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output.splitlines()

    return run


def test_a_right_project_gives_no_alarm_and_is_not_changed(cloud, check):
    status, lines = check()
    assert status == 0, lines
    assert lines[-1].endswith("0 wrong, 0 not visible.")
    posts = {path.rpartition(":")[2] for method, _, path in cloud.requests if method != "GET"}
    assert posts == {"getIamPolicy", "testIamPermissions"}
    assert {request.partition(" ")[0] for request in cloud.vertex.requests} == {"GET"}


def test_another_location_of_the_bucket_that_holds_the_region_is_fine(cloud, check):
    for location in (
        {"location": "EU"},
        {"location": "EUR8", "customPlacementConfig": {"dataLocations": ["EUROPE-WEST4"]}},
    ):
        cloud.buckets["bucket"] = (location, {"roles/storage.objectAdmin"})
        assert check()[0] == 0


def test_an_image_is_found_below_further_folders_and_with_a_tag(cloud, check):
    cloud.images = {f"team/pipeline@{DIGEST}"}
    image = f"europe-west4-docker.pkg.dev/crystals/marco/team/pipeline:1.0@{DIGEST}"
    status, lines = check(package(image))
    assert status == 0, lines
    assert [line for line in lines if "it is in its repository" in line]


def test_the_account_must_be_able_to_write_where_models_are_published(cloud, check):
    cloud.buckets["models"] = ({"location": "EUROPE-WEST4"}, {"roles/storage.objectViewer"})
    content = package()
    pusher = {"inputs": {"parameters": {"destination": {"runtimeValue": {"constant": "gs://models/marco"}}}}}
    content["root"]["dag"]["tasks"]["Pusher"] = pusher
    content["deploymentSpec"]["executors"]["Pusher_executor"] = content["deploymentSpec"]["executors"][
        "Trainer_executor"
    ]
    status, lines = check(content)
    assert status == 1
    assert [line for line in lines if "lacks roles/storage.objectUser on gs://models" in line]


def test_an_account_may_pull_by_a_role_on_the_repository_alone(cloud, check):
    cloud.policy, cloud.pullers = {"roles/aiplatform.user"}, {"roles/artifactregistry.reader"}
    status, lines = check()
    assert status == 0, lines


@pytest.mark.parametrize(
    ("role", "grant"),
    [
        ("roles/aiplatform.user", ""),
        ("roles/artifactregistry.reader", ""),
        ("roles/storage.objectUser", " on gs://bucket"),
    ],
)
def test_a_role_with_a_condition_is_neither_fine_nor_wrong(cloud, check, role, grant):
    cloud.conditions = {role: 'resource.name.startsWith("projects/_/buckets/bucket/objects/runs/")'}
    status, lines = check()
    assert status == 0, lines
    (unseen,) = [line for line in lines[:-1] if f" {package_needs.UNSEEN} " in line]
    assert f"whether the conditional {role} of {google_cloud.ACCOUNT} has what {role}{grant} gives" in unseen


def test_a_condition_on_another_role_excuses_nothing(cloud, check):
    cloud.policy = {"roles/artifactregistry.reader", "roles/viewer"}
    cloud.conditions = {"roles/viewer": "request.time < timestamp('2030-01-01T00:00:00Z')"}
    status, lines = check()
    assert status == 1
    assert [line for line in lines if "lacks roles/aiplatform.user" in line]


def change(field, value):
    return lambda cloud: setattr(cloud, field, value)


def bucket(location="EUROPE-WEST4", role="roles/storage.objectUser"):
    return change("buckets", {"bucket": ({"location": location}, {role})})


def second_endpoint(cloud):
    for identity in ("1", "2"):
        name = f"projects/123456789/locations/europe-west4/endpoints/{identity}"
        cloud.vertex.endpoints[identity] = vertex_api.types.Endpoint(name=name, display_name="marco")


def refusing(cloud):
    cloud.vertex.fault = lambda index, method, path: (403, "before")


QUOTA = "custom_model_training_nvidia_l4_gpus"
FAULTS = {
    "no Vertex AI": (
        change("services", {"storage", "artifactregistry"}),
        "gcloud services enable aiplatform.googleapis.com",
    ),
    "no registry": (change("services", {"storage", "aiplatform"}), "artifactregistry.googleapis.com is off"),
    "no account": (change("account", None), "does not exist; gcloud iam service-accounts create"),
    "account off": (change("account", {"email": "x", "disabled": True}), "is disabled; enable it"),
    "not as it": (change("permissions", set()), "have roles/iam.serviceAccountUser granted to you on it"),
    "no role": (
        change("policy", {"roles/artifactregistry.reader"}),
        "lacks roles/aiplatform.user; gcloud projects add-iam-policy-binding crystals --member serviceAccount:trainer@",
    ),
    "no pulls": (change("policy", {"roles/aiplatform.user"}), "lacks roles/artifactregistry.reader"),
    "read only": (bucket(role="roles/storage.objectViewer"), "lacks roles/storage.objectUser on gs://bucket"),
    "another region": (bucket("US-CENTRAL1"), "gs://bucket is in us-central1, the steps in europe-west4"),
    "another continent": (bucket("US"), "gs://bucket is in us, the steps in europe-west4"),
    "no bucket": (change("buckets", {}), "gcloud storage buckets create gs://bucket --location europe-west4"),
    "no image": (change("images", set()), "is not in its repository; push it"),
    "quota": (
        change("quota", {QUOTA: {"europe-west4": 2}}),
        f"quota in europe-west4 is 2; raise aiplatform.googleapis.com/{QUOTA}",
    ),
    "quota elsewhere": (change("quota", {QUOTA: {"us-central1": 8}}), "the quota in europe-west4 is 0"),
    "two endpoints": (second_endpoint, "there are 2 endpoints 'marco'"),
    "refused": (refusing, "give your account the roles of docs/vertex.md"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_found_with_its_fix(cloud, check, fault):
    plant, text = FAULTS[fault]
    plant(cloud)
    status, lines = check()
    wrong = [line for line in lines[:-1] if f" {package_needs.WRONG} " in line]
    assert status == 1
    assert any(text in line for line in wrong), lines
    # A bucket that does not exist grants no role either.
    assert len(wrong) == (2 if fault == "no bucket" else 1), wrong


def test_machines_and_the_endpoint_have_quotas_of_their_own(cloud, check):
    machines = {"workers": 3, "accelerator": "NVIDIA_TESLA_T4", "accelerators": 2}
    training = {**TRAINING, "custom_job": {"machines": machines}}
    endpoint = {**ENDPOINT, "accelerator": "NVIDIA_L4", "accelerators": 1}
    metrics = ("custom_model_training_nvidia_t4_gpus", "custom_model_serving_nvidia_l4_gpus")
    cloud.quota |= {metric: {"europe-west4": 1} for metric in metrics}
    status, lines = check(package(training=training, endpoint=endpoint))
    assert status == 1
    assert [line for line in lines if "machines asks for 6 NVIDIA_TESLA_T4, the quota in europe-west4 is 1" in line]
    assert [line for line in lines if "holds the 1 of endpoint" in line]


def test_what_may_not_be_read_is_not_visible_and_not_wrong(cloud, check):
    cloud.hidden = {"serviceusage": "SERVICE_DISABLED", "cloudresourcemanager": "IAM_PERMISSION_DENIED"}
    status, lines = check()
    assert status == 0
    assert [line.split()[0] for line in lines if package_needs.UNSEEN in line][:-1] == ["APIs", "roles", "quota"]
    assert [line for line in lines if "serviceusage.googleapis.com is off" in line]


def test_a_login_that_has_expired_is_not_taken_for_hidden_objects(cloud, check):
    cloud.unknown = True
    with pytest.raises(InputError, match=r"serviceusage does not know you \(401\); log in by gcloud auth"):
        check()


def test_a_custom_role_and_the_default_account_are_not_visible(cloud, check):
    cloud.policy = {"projects/crystals/roles/trainer", "roles/artifactregistry.reader"}
    status, lines = check()
    assert status == 0
    assert [line for line in lines if package_needs.UNSEEN in line and "projects/crystals/roles/trainer" in line]
    status, lines = check(account="")
    assert status == 0
    assert [line for line in lines if "name another with --service-account" in line]


def test_a_package_of_another_place_is_refused(tmp_path):
    path = tmp_path / "marco.json"
    path.write_text(json.dumps(package()))
    with pytest.raises(InputError, match="is not compiled for kubeflow; give another file, or --target"):
        typer.testing.CliRunner().invoke(cli.app, ["cluster", "check", str(path)], catch_exceptions=False)


def test_a_project_must_be_named(tmp_path):
    path = tmp_path / "marco.json"
    path.write_text(json.dumps(package()))
    command = ["cluster", "check", str(path), "--target", "vertex"]
    with pytest.raises(InputError, match="--project is None and --location None"):
        typer.testing.CliRunner().invoke(cli.app, command, catch_exceptions=False)


@pytest.mark.long
def test_the_compiled_package_is_read(compiled):
    needs = package_needs.read(compiled.path("paper.json"))
    assert needs.settings == {}
    assert needs.endpoint["name"] == "marco"
    assert package_needs.accelerators(needs)["Trainer"] == ("NVIDIA_L4", 4)
    assert needs.buckets == ("bucket",)
    assert needs.root == "gs://bucket/runs/pipeline"
