"""A stand-in for the APIs of Google Cloud that `marco cluster check --target vertex` reads beside Vertex AI itself.

Methods, parameters and fields are those of the discovery documents in googleapis/google-api-python-client v2.202.0,
`googleapiclient/discovery_cache/documents/`: serviceusage.v1.json, serviceusage.v1beta1.json, iam.v1.json,
cloudresourcemanager.v1.json, storage.v1.json and artifactregistry.v1.json. What they say of answers holds here:

- iam.v1, `serviceAccounts.get`: with the project `-` an account that does not exist is forbidden, not absent.
- cloudresourcemanager.v1, `GetPolicyOptions`: a policy with conditions is whole only in version 3; storage.v1,
  `buckets.getIamPolicy`: the request for an older version fails.
- artifactregistry.v1, `dockerImages.get`: an image's name is one segment of the path.

Errors are `google.rpc.Status` with the `ErrorInfo` of `google/api/error_reason.proto` (googleapis/googleapis at
f8291d2b8). How a role with a condition is renamed before version 3 is in `google/cloud/bigquery/v2/dataset.proto`.
Storage's errors have the form that fsouza/fake-gcs-server at 75035351d gives them, `fakestorage/json_response.go`.
"""

import contextlib
import json
import re
import urllib.parse
from typing import NamedTuple

from tests.fakes import http_server

PROJECT, NUMBER, LOCATION = "crystals", "123456789", "europe-west4"
ACCOUNT = f"trainer@{PROJECT}.iam.gserviceaccount.com"
REPOSITORY = f"projects/{PROJECT}/locations/{LOCATION}/repositories/marco"
PAGE = 1
"""Quota metrics per page."""


class Method(NamedTuple):
    """A method upstream: the path below its service, its query parameters, the fields of its answer."""

    verb: str
    path: str
    query: frozenset[str] | set[str] = frozenset()
    fields: frozenset[str] | set[str] = frozenset()


POLICY = {"version", "bindings", "etag", "auditConfigs"}
# `{…}` is one segment, which may hold an encoded slash.
METHODS = {
    "list_services": Method("GET", "serviceusage/v1/projects/{}/services:batchGet", {"names"}, {"services"}),
    "list_quota": Method(
        "GET",
        "serviceusage/v1beta1/projects/{}/services/{}/consumerQuotaMetrics",
        {"pageSize", "pageToken", "view"},
        {"metrics", "nextPageToken"},
    ),
    "get_account": Method(
        "GET",
        "iam/v1/projects/{}/serviceAccounts/{}",
        fields={"name", "projectId", "uniqueId", "email", "displayName", "description", "etag", "disabled"},
    ),
    "test_permissions": Method(
        "POST", "iam/v1/projects/{}/serviceAccounts/{}:testIamPermissions", fields={"permissions"}
    ),
    "get_policy": Method("POST", "cloudresourcemanager/v1/projects/{}:getIamPolicy", fields=POLICY),
    "get_bucket": Method(
        "GET",
        "storage/storage/v1/b/{}",
        {"generation", "ifMetagenerationMatch", "ifMetagenerationNotMatch", "projection", "softDeleted", "userProject"},
        {"kind", "id", "name", "location", "locationType", "customPlacementConfig", "storageClass", "labels"},
    ),
    "get_bucket_policy": Method(
        "GET",
        "storage/storage/v1/b/{}/iam",
        {"optionsRequestedPolicyVersion", "userProject"},
        {"kind", "resourceId", "version", "bindings", "etag"},
    ),
    "get_repository_policy": Method(
        "GET",
        "artifactregistry/v1/projects/{}/locations/{}/repositories/{}:getIamPolicy",
        {"options.requestedPolicyVersion"},
        POLICY,
    ),
    "get_image": Method(
        "GET",
        "artifactregistry/v1/projects/{}/locations/{}/repositories/{}/dockerImages/{}",
        fields={"name", "uri", "tags", "imageSizeBytes", "uploadTime", "mediaType", "buildTime", "updateTime"},
    ),
}
STANDARD = {"alt", "fields", "key", "prettyPrint", "quotaUser"}
"""Query parameters of every method."""
STORAGE = {400: "invalid", 403: "forbidden", 404: "notFound"}
"""Reasons in Storage's errors."""


class Refusal(Exception):
    """An answer with an error status: its name in `google.rpc.Code`."""

    def __init__(self, status, name, message="refused", details=()):
        super().__init__(message)
        self.status, self.name, self.details = status, name, list(details)


def absent(what):
    return Refusal(404, "NOT_FOUND", f"{what} was not found")


class GoogleCloud:
    """A project that has what a run needs.

    `services`: what is on. `account`: the steps' account, None for none. `permissions`: of the user on it. `policy`:
    roles of the account in the project. `buckets`: location and roles of the account by name. `pullers`: roles of the
    account on the repository. `conditions`: expressions by role, wherever it is granted. `images`: names and digests in
    the repository. `quota`: limits by metric and region. `hidden`: services of which the user may read nothing.
    `unknown`: the user's login has expired.
    """

    def __init__(self):
        self.services = {"aiplatform", "storage", "artifactregistry"}
        self.account, self.permissions = {"email": ACCOUNT}, {"iam.serviceAccounts.actAs"}
        self.policy = {"roles/aiplatform.user", "roles/artifactregistry.reader"}
        self.buckets = {
            "bucket": ({"location": LOCATION.upper(), "locationType": "region"}, {"roles/storage.objectUser"})
        }
        self.pullers, self.conditions = set(), {}
        self.images, self.hidden, self.unknown, self.requests = set(), {}, False, []
        self.quota = {"custom_model_training_nvidia_l4_gpus": {LOCATION: 8, "us-central1": 1}}

    def respond(self, request):
        target = urllib.parse.urlsplit(request.target.lstrip("/"))
        service = target.path.partition("/")[0]
        self.requests.append((request.method, service, request.path.lstrip("/").partition("/")[2]))
        try:
            answer = self._answer(request, service, target.path)
        except Refusal as refusal:
            return http_server.json_answer(refusal.status, {"error": _error(service, refusal)})
        return http_server.json_answer(200, answer)

    def _answer(self, request, service, path):
        if self.unknown:
            raise Refusal(401, "UNAUTHENTICATED")
        if reason := self.hidden.get(service):
            metadata = {"service": f"{service}.googleapis.com", "consumer": f"projects/{NUMBER}"}
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
            raise Refusal(403, "PERMISSION_DENIED", "denied", [info | {"metadata": metadata}])
        name, groups = http_server.find_route(_ROUTES, request.method, path) or (None, ())
        if name is None:
            raise absent(path)
        method = METHODS[name]
        if unknown := request.query.keys() - method.query - STANDARD:
            raise Refusal(400, "INVALID_ARGUMENT", f"unknown name {min(unknown)!r}: cannot bind query parameter")
        answer = getattr(self, name)(request, *map(urllib.parse.unquote, groups))
        asked = set(request.query["fields"].split(",")) if "fields" in request.query else method.fields
        if unknown := (asked | answer.keys()) - method.fields:
            raise Refusal(400, "INVALID_ARGUMENT", f"invalid field selection {min(unknown)}")
        return {field: value for field, value in answer.items() if field in asked}

    def list_services(self, request, project):
        # Of a repeated parameter `request.query` keeps the last.
        names = urllib.parse.parse_qs(urllib.parse.urlsplit(request.target).query)["names"]
        if len(names) > 30 or not all(name.startswith(f"projects/{project}/services/") for name in names):
            raise Refusal(400, "INVALID_ARGUMENT", "names must be at most 30, of the parent")
        names = [name.rpartition("/")[2] for name in names]
        on = {f"{name}.googleapis.com" for name in self.services}
        states = {name: "ENABLED" if name in on else "DISABLED" for name in names}
        return {"services": [{"name": f"projects/{NUMBER}/services/{name}", "state": states[name]} for name in names]}

    def list_quota(self, request, project, service):
        metrics = [f"{service}/other", *(f"{service}/{name}" for name in self.quota)]
        first = int(request.query.get("pageToken") or 0)
        limits = self.quota if request.query.get("view") == "FULL" else {}
        page = [
            _quota_metric(metric, limits.get(metric.rpartition("/")[2], {})) for metric in metrics[first : first + PAGE]
        ]
        more = first + PAGE < len(metrics)
        return {"metrics": page, **({"nextPageToken": str(first + PAGE)} if more else {})}

    def get_account(self, request, project, email):
        if self.account is None and project == "-":
            raise Refusal(403, "PERMISSION_DENIED", f"{email} may not be read, or does not exist")
        if self.account is None or project not in ("-", PROJECT):
            raise absent(email)
        return {"name": f"projects/{PROJECT}/serviceAccounts/{email}", "projectId": PROJECT, **self.account}

    def test_permissions(self, request, project, email):
        return {"permissions": sorted(self.permissions & set(json.loads(request.body)["permissions"]))}

    def get_policy(self, request, project):
        options = json.loads(request.body or b"{}").get("options", {})
        return self._policy(self.policy, options.get("requestedPolicyVersion"))

    def get_bucket(self, request, name):
        if name not in self.buckets:
            raise absent(name)
        return {"kind": "storage#bucket", "id": name, "name": name, **self.buckets[name][0]}

    def get_bucket_policy(self, request, name):
        if name not in self.buckets:
            raise absent(name)
        version = int(request.query.get("optionsRequestedPolicyVersion") or 1)
        if version < 3 and self.buckets[name][1] & self.conditions.keys():
            raise Refusal(400, "INVALID_ARGUMENT", "the policy has conditions; ask for version 3")
        return {"kind": "storage#policy", **self._policy(self.buckets[name][1], version)}

    def get_repository_policy(self, request, *place):
        if "projects/{}/locations/{}/repositories/{}".format(*place) != REPOSITORY:
            raise absent("repository")
        return self._policy(self.pullers, request.query.get("options.requestedPolicyVersion"))

    def get_image(self, request, project, location, repository, name):
        if name not in self.images:
            raise absent(name)
        return {"name": f"{REPOSITORY}/dockerImages/{name}", "mediaType": "application/vnd.oci.image.manifest.v1+json"}

    def _policy(self, roles, version):
        """Returns the policy in the version asked for, as far as its conditions ask for it."""
        whole = int(version or 1) >= 3
        bindings = [{"role": "roles/owner", "members": ["user:you@example.org"]}]
        for role in sorted(roles):
            binding = {"role": role, "members": [f"serviceAccount:{ACCOUNT}"]}
            if role in self.conditions and whole:
                binding["condition"] = {"title": "limited", "expression": self.conditions[role]}
            elif role in self.conditions:
                binding["role"] = f"{role}_withcond_7a34a"
            bindings.append(binding)
        used = 3 if whole and roles & self.conditions.keys() else 1
        return {"version": used, "etag": "BwWWja0YfJA=", "bindings": bindings}


def _quota_metric(metric, limits):
    buckets = [
        {"effectiveLimit": "0", "defaultLimit": "0"},
        *({"effectiveLimit": str(limit), "dimensions": {"region": region}} for region, limit in limits.items()),
    ]
    limit = {"metric": metric, "unit": "1/{project}/{region}", "quotaBuckets": buckets}
    return {"metric": metric, **({"consumerQuotaLimits": [limit]} if limits else {})}


def _error(service, refusal):
    content = {"code": refusal.status, "message": str(refusal)}
    if service == "storage":
        return content | {"errors": [{"domain": "global", "reason": STORAGE[refusal.status], "message": str(refusal)}]}
    return content | {"status": refusal.name, "details": refusal.details}


_ROUTES = [
    (f"{method.verb} {re.escape(method.path).replace(re.escape('{}'), '([^/:]+|[^/]+@[^/]+)')}", name)
    for name, method in METHODS.items()
]


@contextlib.contextmanager
def running():
    """Yields a stand-in that answers below `url` until the block ends: `URL/SERVICE/PATH`."""
    service = GoogleCloud()
    with http_server.serving(service) as service.url:
        yield service
