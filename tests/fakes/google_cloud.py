"""A stand-in for the APIs of Google Cloud that `marco cluster check --target vertex` reads beside Vertex AI itself.

Service Usage was written from the discovery documents in googleapis/google-api-python-client at 00fb49d82,
googleapiclient/discovery_cache/documents/: serviceusage.v1.json (`services.batchGet`) and serviceusage.v1beta1.json
(`services.consumerQuotaMetrics.list`). IAM (`projects.serviceAccounts`), Resource Manager (`projects.getIamPolicy`),
Cloud Storage (`buckets`) and Artifact Registry (`dockerImages.get`) follow Google's REST reference, version 1, and were
not held against it.
"""

import contextlib
import json
import urllib.parse

from tests.fakes import http_server

PROJECT, NUMBER, LOCATION = "crystals", "123456789", "europe-west4"
ACCOUNT = f"trainer@{PROJECT}.iam.gserviceaccount.com"


class GoogleCloud:
    """A project that has what a run needs.

    `services`: what is on. `account`: the steps' account, None for none. `permissions`: of the user on it. `policy`:
    roles of the account in the project. `buckets`: location and roles of the account by name. `images`: digests in the
    repository. `quota`: limits by metric and region. `hidden`: services of which the user may read nothing.
    """

    def __init__(self):
        self.services = {"aiplatform", "storage", "artifactregistry"}
        self.account, self.permissions = {"email": ACCOUNT}, {"iam.serviceAccounts.actAs"}
        self.policy = {"roles/aiplatform.user", "roles/artifactregistry.reader"}
        self.buckets = {
            "bucket": ({"location": LOCATION.upper(), "locationType": "region"}, {"roles/storage.objectUser"})
        }
        self.images, self.hidden, self.requests = set(), {}, []
        self.quota = {"custom_model_training_nvidia_l4_gpus": {LOCATION: 8, "us-central1": 1}}

    def respond(self, request):
        service, _, path = request.path.lstrip("/").partition("/")
        self.requests.append((request.method, service, path))
        if service in self.hidden:
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": self.hidden[service]}]
            return http_server.json_answer(403, {"error": {"code": 403, "message": "denied", "details": details}})
        name, groups = http_server.find_route(_ROUTES, request.method, f"{service}/{path}") or ("missing", ())
        answer = getattr(self, name)(request, *groups)
        return http_server.json_answer(404 if answer is None else 200, answer or {})

    def missing(self, request):
        return None

    def list_services(self, request):
        # Of a repeated parameter `request.query` keeps the last.
        on = {f"{name}.googleapis.com" for name in self.services}
        names = ["aiplatform.googleapis.com", "storage.googleapis.com", "artifactregistry.googleapis.com"]
        states = {name: "ENABLED" if name in on else "DISABLED" for name in names}
        return {"services": [{"name": f"projects/{NUMBER}/services/{name}", "state": states[name]} for name in names]}

    def list_quota(self, request):
        assert request.query["view"] == "FULL"
        return {
            "metrics": [
                {
                    "metric": f"aiplatform.googleapis.com/{metric}",
                    "consumerQuotaLimits": [
                        {
                            "unit": "1/{project}/{region}",
                            "quotaBuckets": [
                                {"effectiveLimit": "0", "defaultLimit": "0"},
                                *(
                                    {"effectiveLimit": str(limit), "dimensions": {"region": region}}
                                    for region, limit in limits.items()
                                ),
                            ],
                        }
                    ],
                }
                for metric, limits in self.quota.items()
            ]
        }

    def get_account(self, request, email):
        return self.account

    def test_permissions(self, request, email):
        return {"permissions": sorted(self.permissions & set(json.loads(request.body)["permissions"]))}

    def get_policy(self, request):
        return self._policy(self.policy)

    def get_bucket(self, request, name):
        return self.buckets[name][0] if name in self.buckets else None

    def get_bucket_policy(self, request, name):
        return self._policy(self.buckets[name][1]) if name in self.buckets else None

    def get_image(self, request, name):
        return {"name": name} if urllib.parse.unquote(name).rpartition("@")[2] in self.images else None

    def _policy(self, roles):
        others = [{"role": "roles/owner", "members": ["user:you@example.org"]}]
        return {
            "bindings": [*others, *({"role": role, "members": [f"serviceAccount:{ACCOUNT}"]} for role in sorted(roles))]
        }


_ROUTES = [
    (f"GET serviceusage/v1/projects/{PROJECT}/services:batchGet", "list_services"),
    (
        f"GET serviceusage/v1beta1/projects/{PROJECT}/services/aiplatform.googleapis.com/consumerQuotaMetrics",
        "list_quota",
    ),
    ("GET iam/v1/projects/-/serviceAccounts/([^:]+)", "get_account"),
    ("POST iam/v1/projects/-/serviceAccounts/([^:]+):testIamPermissions", "test_permissions"),
    (f"POST cloudresourcemanager/v1/projects/{PROJECT}:getIamPolicy", "get_policy"),
    ("GET storage/storage/v1/b/([^/]+)", "get_bucket"),
    ("GET storage/storage/v1/b/([^/]+)/iam", "get_bucket_policy"),
    (
        f"GET artifactregistry/v1/projects/{PROJECT}/locations/{LOCATION}/repositories/marco/dockerImages/(.+)",
        "get_image",
    ),
]


@contextlib.contextmanager
def running():
    """Yields a stand-in that answers below `url` until the block ends: `URL/SERVICE/PATH`."""
    service = GoogleCloud()
    with http_server.serving(service) as service.url:
        yield service
