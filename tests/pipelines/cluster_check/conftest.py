"""A stand-in for the Kubernetes API that `marco cluster check` reads."""

import json

import pytest
import yaml

from tests.fakes import http_server


class Kubernetes:
    """Answers from `objects`; `denied`: the "verb resource" that no account has; `hidden`: paths that are refused."""

    def __init__(self, objects):
        self.objects, self.denied, self.hidden, self.requests = objects, set(), set(), []
        self.status = 0  # Of every answer, if not 0.

    def respond(self, request):
        self.requests.append((request.method, request.path))
        if self.status or request.path in self.hidden:
            return http_server.json_answer(self.status or 403, {"message": "refused"})
        if request.method == "POST":
            spec = json.loads(request.body)["spec"]
            of_itself = request.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            assert of_itself or request.path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            assert of_itself or spec["user"] == "system:serviceaccount:marco:marco-pipeline"
            right = spec["resourceAttributes"]
            allowed = f"{right['verb']} {right['resource']}" not in self.denied
            return http_server.json_answer(201, {"status": {"allowed": allowed}})
        if request.path not in self.objects:
            return http_server.json_answer(404, {"message": "not found"})
        return http_server.json_answer(200, self.objects[request.path])


@pytest.fixture
def kubernetes(objects, tmp_path, monkeypatch):
    """A stand-in with `objects` for the Kubernetes API that kubectl is configured for."""
    service = Kubernetes(objects)
    with http_server.serving(service) as url:
        config = {
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield service
