"""What Google Cloud shows of a project and region, against what a package for Vertex AI needs.

Everything is read by the REST APIs of Google Cloud and nothing is changed; which methods, tests/fakes/google_cloud.py
lists with their sources. Roles that a folder, an organization or a group grants do not show in a project's policy.
"""

import functools
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

import google.auth
import google.auth.transport.requests
import requests

from components.vertex import api as vertex_api, options
from marco_model import errors
from pipelines.cluster_check import needs as package_needs
from pipelines.cluster_check.needs import FINE, UNSEEN, WRONG, HiddenError, Lines, Needs, Object

ADDRESS = "https://{service}.googleapis.com"
TIMEOUT = 30.0
BASIC = {"roles/owner", "roles/editor"}
USER = {"roles/aiplatform.user", "roles/aiplatform.admin", *BASIC}
PULL = {f"roles/artifactregistry.{kind}" for kind in ("reader", "writer", "repoAdmin", "admin")} | BASIC
WRITE = {"roles/storage.objectUser", "roles/storage.objectAdmin", "roles/storage.admin"}
READ = {"roles/storage.objectViewer", *WRITE}
CONDITIONAL = "the conditional "


class Cloud:
    """Google Cloud's REST APIs, as the user; each answer is read once. `account`: the steps' service account, or ""."""

    def __init__(self, place: options.Vertex, account: str = "") -> None:
        self.place, self.account = place, account
        self.vertex = vertex_api.Api(place)
        self._known: dict[tuple[str, str], Object | None] = {}

    def get(self, service: str, path: str, body: Object | None = None) -> Object | None:
        """Returns the answer of a service, to a POST where there is a `body`; None for 404.

        Raises `HiddenError` where the user may not read it or the API is off, `ClusterError` where it fails.
        """
        if (service, path) not in self._known:
            self._known[service, path] = self._request(service, path, body)
        return self._known[service, path]

    def _request(self, service: str, path: str, body: Object | None) -> Object | None:
        url = f"{ADDRESS.format(service=service)}/{path}"
        try:
            method = "GET" if body is None else "POST"
            answer = self._session.request(method, url, json=body, timeout=TIMEOUT)
        except (requests.RequestException, google.auth.exceptions.TransportError) as error:
            raise errors.ClusterError(f"{service} cannot be reached ({errors.one_line(error)})") from error
        except google.auth.exceptions.GoogleAuthError as error:
            advice = "log in by gcloud auth application-default login"
            raise errors.InputError(f"{errors.one_line(error)}; {advice}") from error
        if answer.status_code == 404:
            return None
        if answer.status_code == 401:
            raise errors.InputError(
                f"{service} does not know you (401); log in by gcloud auth application-default login"
            )
        if answer.status_code == 403:
            off = f"{service}.googleapis.com is off" if "SERVICE_DISABLED" in answer.text else answer.reason
            raise HiddenError(f"{answer.status_code} {off}")
        if not answer.ok:
            raise errors.ClusterError(f"{service} answers {answer.status_code} to {path}")
        return dict(answer.json())

    @functools.cached_property
    def _session(self) -> Any:
        if ADDRESS.startswith("http://"):
            return requests.Session()
        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        return google.auth.transport.requests.AuthorizedSession(google.auth.default(scopes=scopes)[0])

    def pages(self, service: str, path: str, field: str) -> list[Object]:
        """Returns the items of all pages of a list."""
        found, page = [], ""
        while answer := self.get(service, path + page):
            found += answer.get(field, [])
            if not (token := answer.get("nextPageToken")):
                break
            page = f"&pageToken={urllib.parse.quote(token, safe='')}"
        return found

    def roles(self, bucket: str = "", repository: str = "") -> set[str]:
        """Returns the roles that the project, a bucket or a repository grants the account itself.

        One with a condition, which only version 3 of a policy shows, begins with `CONDITIONAL`.
        """
        if bucket:
            policy = self.get("storage", f"storage/v1/b/{bucket}/iam?optionsRequestedPolicyVersion=3")
        elif repository:
            path = f"v1/{repository}:getIamPolicy?options.requestedPolicyVersion=3"
            policy = self.get("artifactregistry", path)
        else:
            options = {"options": {"requestedPolicyVersion": 3}}
            policy = self.get("cloudresourcemanager", f"v1/projects/{self.place.project}:getIamPolicy", options)
        member = f"serviceAccount:{self.account}"
        bindings = [item for item in (policy or {}).get("bindings", []) if member in item.get("members", [])]
        return {CONDITIONAL * ("condition" in item) + item["role"] for item in bindings}


def _apis(cloud: Cloud, needs: Needs) -> Lines:
    place = f"projects/{cloud.place.project}/services"
    names = ["aiplatform", "storage", *(["artifactregistry"] if any(map(_repository, needs.images())) else [])]
    query = "&".join(f"names={place}/{name}.googleapis.com" for name in names)
    answer = cloud.get("serviceusage", f"v1/{place}:batchGet?{query}") or {}
    on = {item["name"].rpartition("/")[2] for item in answer.get("services", []) if item.get("state") == "ENABLED"}
    for name in (f"{name}.googleapis.com" for name in names):
        yield (FINE, f"{name} is on") if name in on else (WRONG, f"{name} is off; gcloud services enable {name}")


def _account(cloud: Cloud, needs: Needs) -> Lines:
    if not cloud.account:
        yield UNSEEN, "steps run as Compute Engine's default account; name another with --service-account"
        return
    # With "-" for the project an account that does not exist is answered with 403.
    named = re.search(r"@([a-z0-9-]+)\.iam\.gserviceaccount\.com$", cloud.account)
    path = f"v1/projects/{named[1] if named else cloud.place.project}/serviceAccounts/{cloud.account}"
    account = cloud.get("iam", path)
    if account is None or account.get("disabled"):
        state = "is disabled; enable it" if account else "does not exist; gcloud iam service-accounts create"
        yield WRONG, f"{cloud.account} {state}"
        return
    right = "iam.serviceAccounts.actAs"
    answer = cloud.get("iam", f"{path}:testIamPermissions", {"permissions": [right]}) or {}
    may = right in answer.get("permissions", [])
    refused = f"you may not run steps as {cloud.account}; have roles/iam.serviceAccountUser granted to you on it"
    yield (FINE, f"you may run steps as {cloud.account}") if may else (WRONG, refused)


def _roles(cloud: Cloud, needs: Needs) -> Lines:
    if not cloud.account:
        return
    granted = cloud.roles()
    fix = f"gcloud projects add-iam-policy-binding {cloud.place.project}"
    yield _judge(cloud, "roles/aiplatform.user", USER, granted, fix)
    for repository in sorted({repository for image in needs.images() if (repository := _repository(image))}):
        # What the repository itself grants is asked for only where it matters.
        pulling = granted if granted & PULL else granted | cloud.roles(repository=repository)
        yield _judge(cloud, "roles/artifactregistry.reader", PULL, pulling, fix)
    for bucket in needs.buckets:
        written = any(f"{uri}/".startswith(f"gs://{bucket}/") for uri in (needs.root, *needs.written))
        all_roles = granted | cloud.roles(bucket)
        role = "roles/storage.objectUser" if written else "roles/storage.objectViewer"
        fix = f"gcloud storage buckets add-iam-policy-binding gs://{bucket}"
        yield _judge(cloud, f"{role} on gs://{bucket}", WRITE if written else READ, all_roles, fix)


def _judge(cloud: Cloud, role: str, enough: set[str], granted: set[str], fix: str) -> tuple[str, str]:
    if found := granted & enough:
        return FINE, f"{cloud.account} has {min(found)}, for {role}"
    doubtful = {name for name in granted if not name.startswith(("roles/", CONDITIONAL))}
    doubtful |= granted & {CONDITIONAL + name for name in enough}
    if doubtful:
        return UNSEEN, f"whether {min(doubtful)} of {cloud.account} has what {role} gives"
    grant = f"{fix} --member serviceAccount:{cloud.account} --role {role.split()[0]}"
    return WRONG, f"{cloud.account} lacks {role}; {grant}"


def _buckets(cloud: Cloud, needs: Needs) -> Lines:
    region = cloud.place.location
    for bucket in needs.buckets:
        content = cloud.get("storage", f"storage/v1/b/{bucket}?fields=location,locationType,customPlacementConfig")
        if content is None:
            create = f"gcloud storage buckets create gs://{bucket} --location {region}"
            yield WRONG, f"gs://{bucket} does not exist; {create}"
            continue
        location = content["location"].lower()
        pair = [place.lower() for place in content.get("customPlacementConfig", {}).get("dataLocations", [])]
        wide = {"eu": "europe", "us": "us", "asia": "asia"}.get(location)
        near = region in (location, *pair) or (wide is not None and region.startswith(f"{wide}-"))
        far = f"gs://{bucket} is in {location}, the steps in {region}; use one there, or --location"
        yield (FINE, f"gs://{bucket} is in {location}") if near else (WRONG, far)


def _image(cloud: Cloud, needs: Needs) -> Lines:
    yield from package_needs.image_digests(needs)
    for image in needs.images():
        if (repository := _repository(image)) and "@" in image:
            path, _, digest = image.split("/", 3)[3].rpartition("@")
            name = urllib.parse.quote(f"{path.partition(':')[0]}@{digest}", safe="@:")
            stored = cloud.get("artifactregistry", f"v1/{repository}/dockerImages/{name}")
            absent = f"{image} is not in its repository; push it, and compile with the digest that the push prints"
            yield (FINE, "it is in its repository") if stored is not None else (WRONG, absent)


def _repository(image: str) -> str:
    """Returns the name of an image's repository in Artifact Registry, "" if it is elsewhere."""
    match = re.match(r"([a-z0-9-]+)-docker\.pkg\.dev/([^/]+)/([^/]+)/", image)
    return "projects/{1}/locations/{0}/repositories/{2}".format(*match.groups()) if match else ""


def _quota(cloud: Cloud, needs: Needs) -> Lines:
    """Says whether the region's quota holds the accelerators of each step, of several machines, and of the endpoint."""
    requested = {step: ("training", *item) for step, item in package_needs.accelerators(needs).items()}
    machines = (needs.training.get("custom_job") or {}).get("machines") or {}
    if count := machines.get("accelerators", 0) * machines.get("workers", 0):
        requested["machines"] = ("training", machines["accelerator"], count)
    if count := needs.endpoint.get("accelerators", 0) * needs.endpoint.get("min_replicas", 0):
        requested["endpoint"] = ("serving", needs.endpoint["accelerator"], count)
    if not requested:
        yield FINE, "no step asks for an accelerator"
        return
    service = f"projects/{cloud.place.project}/services/aiplatform.googleapis.com"
    metrics = cloud.pages("serviceusage", f"v1beta1/{service}/consumerQuotaMetrics?view=FULL&pageSize=1000", "metrics")
    for step, (goal, accelerator, count) in requested.items():
        kind = accelerator.removeprefix("NVIDIA_").removeprefix("TESLA_").lower()
        name = f"aiplatform.googleapis.com/custom_model_{goal}_nvidia_{kind}_gpus"
        limit = _limit([metric for metric in metrics if metric["metric"] == name], cloud.place.location)
        if limit is None:
            yield UNSEEN, f"the quota of {accelerator} for {step} ({name})"
        elif 0 <= limit < count:
            low = f"the quota in {cloud.place.location} is {limit}; raise {name}"
            yield WRONG, f"{step} asks for {count} {accelerator}, {low}"
        else:
            yield FINE, f"the quota of {accelerator} holds the {count} of {step}"


def _limit(metrics: list[Object], region: str) -> int | None:
    """Returns what a quota allows in a region, -1 for any number, None if none is listed; the region's goes first."""
    buckets = [
        bucket
        for metric in metrics
        for limit in metric.get("consumerQuotaLimits", [])
        for bucket in limit.get("quotaBuckets", [])
        if bucket.get("dimensions", {}).get("region", region) == region
    ]
    buckets.sort(key=lambda bucket: "region" not in bucket.get("dimensions", {}))
    return int(buckets[0].get("effectiveLimit", 0)) if buckets else None


def _endpoint(cloud: Cloud, needs: Needs) -> Lines:
    """Says whether Vertex AI answers, and finds at most one endpoint of the name that is deployed to."""
    name = needs.endpoint.get("name", "")
    request = {"parent": cloud.place.parent, **({"filter": f'display_name="{name}"'} if name else {})}
    try:
        listed = cloud.vertex.list_all("Endpoint", "list_endpoints", request, "endpoints")
    except vertex_api.Refused as error:
        yield WRONG, str(error)
        return
    if len(listed) > 1 and name:
        yield WRONG, f"there are {len(listed)} endpoints {name!r}; name another, or delete all but one"
    elif name:
        yield FINE, f"endpoint {name} {'is there' if listed else 'will be made'}"
    else:
        yield FINE, f"Vertex AI answers in {cloud.place.location}; the package deploys nothing"


CHECKS: dict[str, Callable[[Cloud, Needs], Lines]] = {
    "APIs": _apis,
    "account": _account,
    "roles": _roles,
    "buckets": _buckets,
    "image": _image,
    "quota": _quota,
    "endpoint": _endpoint,
}
