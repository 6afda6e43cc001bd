"""The stand-in for Google Cloud (tests/fakes/google_cloud.py) refuses what upstream refuses."""

import pytest
import requests

from tests.fakes import google_cloud
from tests.fakes.google_cloud import ACCOUNT, PROJECT, REPOSITORY

REFUSED = {
    "unknown path": ("GET", "storage/v1/b/bucket", 404),
    "another verb": ("POST", "storage/storage/v1/b/bucket/iam", 404),
    "unknown parameter": ("GET", "storage/storage/v1/b/bucket/iam?options.requestedPolicyVersion=3", 400),
    "unknown field": ("GET", "storage/storage/v1/b/bucket?fields=region", 400),
    "old policy with a condition": ("GET", "storage/storage/v1/b/bucket/iam", 400),
    "absent account": ("GET", f"iam/v1/projects/{PROJECT}/serviceAccounts/{ACCOUNT}", 404),
    "absent account of any project": ("GET", f"iam/v1/projects/-/serviceAccounts/{ACCOUNT}", 403),
    "image in two segments": ("GET", f"artifactregistry/v1/{REPOSITORY}/dockerImages/team/pipeline@sha256:0a", 404),
    "names of another project": (
        "GET",
        f"serviceusage/v1/projects/{PROJECT}/services:batchGet?names=projects/other/services/storage.googleapis.com",
        400,
    ),
}


@pytest.fixture
def cloud():
    with google_cloud.running() as cloud:
        cloud.account, cloud.images = None, {"team/pipeline@sha256:0a"}
        cloud.conditions = {"roles/storage.objectUser": "true", "roles/aiplatform.user": "true"}
        yield cloud


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_request_that_upstream_refuses_is_refused(cloud, case):
    method, path, status = REFUSED[case]
    answer = requests.request(method, f"{cloud.url}/{path}", timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)


def test_an_image_below_a_folder_is_one_segment(cloud):
    path = f"artifactregistry/v1/{REPOSITORY}/dockerImages/team%2Fpipeline@sha256:0a"
    assert requests.get(f"{cloud.url}/{path}", timeout=30).ok


def test_quota_comes_in_pages(cloud):
    url = f"{cloud.url}/serviceusage/v1beta1/projects/{PROJECT}/services/aiplatform.googleapis.com/consumerQuotaMetrics"
    first = requests.get(url, params={"view": "FULL"}, timeout=30).json()
    second = requests.get(url, params={"view": "FULL", "pageToken": first["nextPageToken"]}, timeout=30).json()
    assert len(first["metrics"] + second["metrics"]) == 1 + len(cloud.quota)
    assert "nextPageToken" not in second


@pytest.mark.parametrize(
    ("version", "role"), [(1, "roles/aiplatform.user_withcond_7a34a"), (3, "roles/aiplatform.user")]
)
def test_only_version_3_of_a_policy_shows_conditions(cloud, version, role):
    url = f"{cloud.url}/cloudresourcemanager/v1/projects/{PROJECT}:getIamPolicy"
    policy = requests.post(url, json={"options": {"requestedPolicyVersion": version}}, timeout=30).json()
    (binding,) = [item for item in policy["bindings"] if item["role"].startswith("roles/aiplatform.user")]
    assert (policy["version"], binding["role"], "condition" in binding) == (version, role, version == 3)
