"""`marco cluster check --inside`: what a pod like a step's reaches, right and with one fault at a time."""

import base64
import contextlib
import datetime
import re
import socket

import pytest
import yaml

from pipelines.cluster_check import inside, kubernetes_api, needs as package_needs
from tests.fakes import http_server
from tests.k8s import policy, restricted, validation

IMAGE = f"registry.example/marco@sha256:{'0a' * 32}"
ROOT = "minio://mlpipeline/private-artifacts/marco/runs"
KEYS = {"accesskey": "marco", "secretkey": "hunter2"}


def needs(root=ROOT, tracking="", folder="/shared", **more):
    settings = {
        "pvcMount": [{"constant": "marco-shared", "mountPath": str(folder)}],
        "secretAsEnv": [{"secretName": "store", "keyToEnv": [{"secretKey": "key", "envVar": "KEY"}]}],
        "secretAsVolume": [{"secretName": "certificates", "mountPath": "/etc/ca"}],
    }
    environment = [{"name": "SSL_CERT_DIR", "value": "/etc/ca"}]
    fields = {
        "containers": {"Data": {"image": IMAGE, "env": environment}, "Trainer": {"image": IMAGE, "env": environment}},
        "settings": {"Data": settings, "Trainer": settings},
        "training": {"tracking": {"uri": tracking}},
        "endpoint": {},
        "root": root,
        "buckets": (),
        "written": (),
        "content": "root: {}\n",
    }
    return package_needs.Needs(**{**fields, **more})


class Mlflow:
    """Answers as MLflow 3.17.2 does (mlflow/server/security_utils.py): `/version` is exempt from the host check."""

    def __init__(self):
        self.host, self.version, self.status, self.login = "", "3.15.2", 200, ""

    def respond(self, request):
        if request.path == "/version":
            return http_server.Answer(200, self.version.encode())
        if request.headers["Host"] != self.host:
            return http_server.Answer(403, b"Invalid Host header - possible DNS rebinding attack detected")
        if self.login and request.headers["Authorization"] != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            return http_server.Answer(401, b"You are not authenticated")
        return http_server.json_answer(self.status, {"experiments": []})


class ObjectStore:
    """Kubeflow's store: the keys of a profile reach the prefixes of tests/k8s/upstream/kubeflow.yaml alone."""

    def __init__(self):
        self.objects, self.written, self.damage = {}, [], False

    def respond(self, request):
        signature = (
            rf"AWS4-HMAC-SHA256 Credential={KEYS['accesskey']}/\d{{8}}/us-east-1/s3/aws4_request, SignedHeaders="
        )
        if not re.match(signature, request.headers["Authorization"]) or not request.path.startswith(
            "/mlpipeline/private-artifacts/marco/"
        ):
            return http_server.Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        if request.method == "PUT":
            self.written.append(request.path)
            self.objects[request.path] = b"cached" if self.damage else request.body
        elif request.method == "DELETE":
            del self.objects[request.path]
        return http_server.Answer(200, self.objects[request.path] if request.method == "GET" else b"")


class Place:
    """All that a run reaches: `mlflow`, `store`, Kubeflow's `ports`, `names` that are resolved, and a `folder`."""

    def __init__(self, kubernetes, folder):
        self.kubernetes, self.folder = kubernetes, folder
        self.mlflow, self.store, self.names = Mlflow(), ObjectStore(), {}
        self.root, self.tracking, self.buckets, self.written = ROOT, "", (), ()

    def check(self):
        """Returns the findings."""
        requested = needs(self.root, self.tracking, self.folder, buckets=self.buckets, written=self.written)
        return package_needs.collect(inside.CHECKS, kubernetes_api.Api("marco"), requested)


@pytest.fixture
def objects():
    """The objects that a step's account may read."""
    data = {name: base64.b64encode(value.encode()).decode() for name, value in KEYS.items()}
    return {"/api/v1/namespaces/marco/secrets/mlpipeline-minio-artifact": {"data": data}}


@pytest.fixture
def place(kubernetes, tmp_path, monkeypatch):
    """A place where nothing is wrong."""
    place = Place(kubernetes, tmp_path)
    resolve = socket.getaddrinfo

    def known(host, port, *arguments, **options):
        if host in place.names:
            return resolve("127.0.0.1", port, *arguments, **options)
        if host in ("127.0.0.1", "localhost"):
            return resolve(host, port, *arguments, **options)
        raise socket.gaierror(-2, "Name or service not known")

    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(http_server.serving(getattr(place, name))) for name in ("mlflow", "store")}
        ports = {name: int(url.rpartition(":")[2]) for name, url in urls.items()}
        place.mlflow.host = f"mlflow:{ports['mlflow']}"
        place.tracking = f"http://{place.mlflow.host}"
        monkeypatch.setattr(inside, "STORE_PORT", ports["store"])
        monkeypatch.setattr(inside, "SERVICES", dict.fromkeys(inside.SERVICES, ports["store"]))
        monkeypatch.setattr(socket, "getaddrinfo", known)
        services = ("metadata-grpc-service", "ml-pipeline", "seaweedfs")
        place.names = dict.fromkeys(["mlflow", *(f"{name}.kubeflow" for name in services)])
        yield place


def wrong(lines):
    return [line for line in lines if line.state == package_needs.WRONG]


def test_a_right_place_gives_no_alarm_and_keeps_nothing(place):
    lines = place.check()
    assert wrong(lines) == []
    assert {line.state for line in lines} == {package_needs.FINE}
    (written,) = place.store.written
    assert written.startswith("/mlpipeline/private-artifacts/marco/runs/.check-")
    assert place.store.objects == {}
    assert [path.name for path in place.folder.iterdir()] == ["kubeconfig"]


def test_a_place_on_a_bucket_is_tried_and_nothing_is_left(place, gcs):
    gcs.bucket("runs")
    place.root, place.buckets = "gs://runs/marco", ("runs",)
    place.names["storage.googleapis.com"] = None
    lines = place.check()
    assert wrong(lines) == []
    assert gcs.objects("gs://runs/") == {}
    assert any("POST" in request and ".check-" in request for request in gcs.requests)


def test_where_models_are_published_is_tried_too(place, gcs):
    gcs.bucket("models")
    place.buckets, place.written = ("models",), ("gs://models/marco",)
    place.names["storage.googleapis.com"] = None
    assert wrong(place.check()) == []
    assert gcs.objects("gs://models/") == {}
    assert any("POST" in request and ".check-" in request for request in gcs.requests)
    gcs.inject("403", r"POST .*/upload/", times=9)
    assert [line.subject for line in wrong(place.check())] == ["buckets"]


def test_a_missing_bucket_is_found(place, gcs):
    place.root, place.buckets = "gs://runs/marco", ("runs",)
    place.names["storage.googleapis.com"] = None
    assert [line.subject for line in wrong(place.check())] == ["object store", "buckets"]


def unnamed(place):
    del place.names["ml-pipeline.kubeflow"]


def no_store(place):
    del place.names["seaweedfs.kubeflow"]


def service_down(place):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        inside.SERVICES["ml-pipeline"] = closed.getsockname()[1]


def mlflow_down(place):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        place.tracking = f"http://mlflow:{closed.getsockname()[1]}"


def no_volume(place):
    place.folder = place.folder / "absent"


def fault(part, field, value):
    """Returns a fault: a field of a part of the place, or of the place itself, has another value."""
    return lambda place: setattr(getattr(place, part) if part else place, field, value)


SECRET = "/api/v1/namespaces/marco/secrets/mlpipeline-minio-artifact"
FAULTS = {
    "a name": (unnamed, "names", "ml-pipeline.kubeflow is not resolved"),
    "a service": (service_down, "Kubeflow Pipelines", "does not answer"),
    "a right": (fault("kubernetes", "denied", {"get pods"}), "rights", "may not get pods, "),
    "MLflow": (mlflow_down, "MLflow", "does not answer"),
    "MLflow's hosts": (fault("mlflow", "host", "localhost:5000"), "MLflow", "add it to --allowed-hosts of the server"),
    "MLflow's login": (fault("mlflow", "login", "ann:secret"), "MLflow", "answers 401; set MLFLOW_TRACKING_USERNAME"),
    "MLflow's database": (fault("mlflow", "status", 500), "MLflow", "answers 500"),
    "MLflow's version": (fault("mlflow", "version", "2.22.0"), "MLflow", "MLflow 2.22.0 is too old; run version 3"),
    "another prefix": (
        fault("", "root", "minio://mlpipeline/runs"),
        "object store",
        "is refused (403); give --root below",
    ),
    "no object store": (no_store, "object store", "neither seaweedfs.kubeflow nor minio-service.kubeflow"),
    "keys": (fault("kubernetes", "hidden", {SECRET}), "object store", "may not read Secret mlpipeline-minio-artifact"),
    "a cache": (fault("store", "damage", True), "object store", "has another content than was written"),
    "a volume": (no_volume, "volumes", "can't be written (No such file or directory); see kubectl --namespace marco"),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_is_found_with_its_fix(place, name):
    plant, subject, text = FAULTS[name]
    plant(place)
    found = wrong(place.check())
    assert any(line.subject == subject and text in line.text for line in found), found
    assert len({line.subject for line in found}) == (2 if name == "a name" else 1)
    assert place.store.objects == {}


def test_mlflow_gets_the_login_of_a_step(place, monkeypatch):
    place.mlflow.login = "ann:secret"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert wrong(place.check()) == []


def test_requests_are_signed_as_the_example_of_amazon():
    # docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, "GET Bucket Lifecycle".
    keys = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    now = datetime.datetime(2013, 5, 24, tzinfo=datetime.timezone.utc)
    headers = inside.signed("GET", "https://examplebucket.s3.amazonaws.com/?lifecycle=", keys, b"", now)
    assert headers["Authorization"].endswith("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543")


def test_the_pod_is_a_steps_and_is_admitted():
    config_map, pod = yaml.safe_load_all(inside.pod_manifest(needs(), "marco"))
    assert [validation.problems(item, version) for item in (config_map, pod) for version in ("1.32", "1.37")] == [
        []
    ] * 4
    assert policy.findings({**restricted.RESTRICTED, **policy.OWN}, iter([("pod", pod)])) == []
    assert config_map["data"]["marco.yaml"] == needs().content
    spec = pod["spec"]
    assert spec["serviceAccountName"] == "marco-pipeline"
    assert "workflows.argoproj.io/workflow" in pod["metadata"]["labels"]
    (container,) = spec["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[mounts["/shared"]]["persistentVolumeClaim"] == {"claimName": "marco-shared"}
    assert volumes[mounts["/etc/ca"]]["secret"] == {"secretName": "certificates"}
    names = [variable["name"] for variable in container["env"]]
    assert names == ["SSL_CERT_DIR", "KEY"]
    assert container["command"][:4] == ["marco", "cluster", "check", "/package/marco.yaml"]
