"""`marco cluster check` against a stand-in for the Kubernetes API, right and with one fault at a time."""

import copy
import json

import pytest
import typer.testing
import yaml

from marco_model.errors import InputError
from pipelines import cli, cluster_check
from tests.fakes import http_server

CORE, KUBEFLOW = "/api/v1/namespaces/marco", "/api/v1/namespaces/kubeflow"
STEPS = ("Data", "Trainer")
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
TRAINING = {
    "tracking": {"uri": "http://mlflow:5000"},
    "placement": {"replicas": {"workers": 2, "service_account": "marco-training"}},
}
IMAGE = f"registry.example/marco@sha256:{'0a' * 32}"


def container(**more):
    return {"image": IMAGE, "resources": {"cpuRequest": 4.0, "memoryRequest": 8.0, **more}}


SETTINGS = {
    "pvcMount": [{"constant": "marco-shared", "mountPath": "/shared"}],
    "secretAsEnv": [{"secretName": "store", "keyToEnv": [{"secretKey": "key", "envVar": "KEY"}]}],
    "secretAsVolume": [{"secretName": "certificates", "mountPath": "/etc/ca"}],
}
PACKAGE = [
    {
        "root": {
            "dag": {
                "tasks": {
                    "Data": {},
                    "Trainer": {
                        "inputs": {"parameters": {"training": {"runtimeValue": {"constant": json.dumps(TRAINING)}}}}
                    },
                }
            }
        },
        "deploymentSpec": {
            "executors": {
                "Data_executor": {"container": container()},
                "Trainer_executor": {"container": container(accelerator={"type": "nvidia.com/gpu", "count": "2"})},
            }
        },
    },
    {
        "platforms": {
            "kubernetes": {
                "deploymentSpec": {
                    "executors": {
                        "Data_executor": SETTINGS,
                        "Trainer_executor": {
                            **SETTINGS,
                            "nodeSelector": {"labels": {"pool": "gpu"}},
                            "tolerations": [TOLERATION],
                        },
                    }
                }
            }
        }
    },
]


def node(labels, taints=(), **allocatable):
    return {
        "metadata": {"labels": labels},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": {"cpu": "7910m", "memory": "30Gi", **allocatable}},
    }


def right_cluster():
    """Returns the objects of a cluster that lacks nothing, by path."""
    labels = {"app.kubernetes.io/part-of": "kubeflow-profile", "pod-security.kubernetes.io/enforce": "restricted"}
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    defaults = {"spec": {"templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": "OnError"}}}}
    image = "ghcr.io/kubeflow/kfp-api-server:2.17.0"
    return {
        "/version": {"major": "1", "minor": "34+"},
        "/apis/argoproj.io/v1alpha1": {},
        "/apis/jobset.x-k8s.io/v1alpha2": {},
        "/apis/serving.kserve.io/v1beta1": {},
        CORE: {"metadata": {"labels": labels}},
        f"{CORE}/serviceaccounts/marco-pipeline": {},
        f"{CORE}/serviceaccounts/marco-training": {},
        f"{CORE}/secrets/mlpipeline-minio-artifact": {"data": {"accesskey": "YQ==", "secretkey": "Yg=="}},
        f"{CORE}/secrets/store": {"data": {"key": "c2VjcmV0"}},
        f"{CORE}/secrets/certificates": {"data": {}},
        f"{CORE}/persistentvolumeclaims/marco-shared": {
            "spec": {"accessModes": ["ReadWriteMany"]},
            "status": {"phase": "Bound"},
        },
        f"{CORE}/resourcequotas": {
            "items": [{"spec": {"hard": {"requests.cpu": "128", "requests.nvidia.com/gpu": "8", "pods": "100"}}}]
        },
        "/api/v1/nodes": {"items": [node({}), node({"pool": "gpu"}, [taint], **{"nvidia.com/gpu": "4"})]},
        "/apis/apps/v1/namespaces/kubeflow/deployments/ml-pipeline": {
            "spec": {"template": {"spec": {"containers": [{"image": image}]}}},
            "status": {"readyReplicas": 1},
        },
        f"{KUBEFLOW}/configmaps/pipeline-install-config": {"data": {"defaultSecurityContextRunAsUser": "1000"}},
        f"{KUBEFLOW}/configmaps/workflow-controller-configmap": {
            "data": {"workflowDefaults": yaml.safe_dump(defaults)}
        },
        f"{CORE}/endpoints/mlflow": {"subsets": [{"addresses": [{"ip": "10.0.0.7"}]}]},
    }


class Kubernetes:
    """Answers from `objects`; `denied`: the "verb resource" that no account has; `hidden`: paths that are refused."""

    def __init__(self):
        self.objects, self.denied, self.hidden, self.requests = right_cluster(), set(), set(), []

    def respond(self, request):
        self.requests.append((request.method, request.path))
        if request.path in self.hidden:
            return http_server.json_answer(403, {"message": "forbidden"})
        if request.method == "POST":
            assert request.path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            spec = json.loads(request.body)["spec"]
            assert spec["user"] == "system:serviceaccount:marco:marco-pipeline"
            right = spec["resourceAttributes"]
            allowed = f"{right['verb']} {right['resource']}" not in self.denied
            return http_server.json_answer(201, {"status": {"allowed": allowed}})
        if request.path not in self.objects:
            return http_server.json_answer(404, {"message": "not found"})
        return http_server.json_answer(200, self.objects[request.path])


@pytest.fixture
def kubernetes(tmp_path, monkeypatch):
    service = Kubernetes()
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


@pytest.fixture
def check(kubernetes, tmp_path):
    """Returns a function that runs the command over a package and returns its exit status and lines."""

    def run(package=PACKAGE):
        path = tmp_path / "marco.yaml"
        path.write_text(yaml.safe_dump_all(package))
        result = typer.testing.CliRunner().invoke(cli.app, ["cluster", "check", str(path)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output.splitlines()

    return run


def test_a_right_cluster_gives_no_alarm_and_is_not_changed(kubernetes, check):
    status, lines = check()
    assert status == 0, lines
    assert lines[-1].endswith("0 wrong, 0 not visible.")
    methods = {method for method, path in kubernetes.requests if not path.endswith("subjectaccessreviews")}
    assert methods == {"GET"}


def test_no_value_of_a_secret_is_shown(check):
    text = "\n".join(check()[1])
    assert "YQ==" not in text and "c2VjcmV0" not in text


def change(path, *keys, value):
    """Returns a fault: the value at `keys` of the object at `path` is another; without keys the object is gone."""

    def plant(kubernetes):
        if not keys:
            del kubernetes.objects[path]
            return
        target = kubernetes.objects[path]
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return plant


def gone(path):
    return change(path, value=None)


def deny(right):
    return lambda kubernetes: kubernetes.denied.add(right)


GPU = ("items", 1)
QUOTA = ("items", 0, "spec", "hard")
ML_PIPELINE = "/apis/apps/v1/namespaces/kubeflow/deployments/ml-pipeline"
ARGO = f"{KUBEFLOW}/configmaps/workflow-controller-configmap"
CLAIM = f"{CORE}/persistentvolumeclaims/marco-shared"
FAULTS = {
    "old": (change("/version", "minor", value="31"), "1.32 or later is needed"),
    "no Argo": (gone("/apis/argoproj.io/v1alpha1"), "install Kubeflow Pipelines"),
    "no JobSet": (gone("/apis/jobset.x-k8s.io/v1alpha2"), "install JobSet"),
    "no KServe": (gone("/apis/serving.kserve.io/v1beta1"), "install KServe"),
    "no namespace": (gone(CORE), "make the profile of that name"),
    "another label": (
        change(CORE, "metadata", "labels", "app.kubernetes.io/part-of", value="marco"),
        "kubectl label --overwrite namespace marco app.kubernetes.io/part-of=kubeflow-profile",
    ),
    "another level": (
        change(CORE, "metadata", "labels", "pod-security.kubernetes.io/enforce", value="baseline"),
        "Pod Security level is baseline",
    ),
    "no account": (gone(f"{CORE}/serviceaccounts/marco-pipeline"), "no service account marco-pipeline"),
    "no replicas' account": (gone(f"{CORE}/serviceaccounts/marco-training"), "no service account marco-training"),
    "no results": (deny("create workflowtaskresults"), "may not create workflowtaskresults"),
    "no JobSets": (deny("delete jobsets"), "may not delete jobsets"),
    "no secret": (gone(f"{CORE}/secrets/store"), "there is no Secret store"),
    "no mounted secret": (gone(f"{CORE}/secrets/certificates"), "there is no Secret certificates"),
    "no key": (change(f"{CORE}/secrets/store", "data", value={"other": "YQ=="}), "Secret store has no key key"),
    "no object store": (gone(f"{CORE}/secrets/mlpipeline-minio-artifact"), "no Secret mlpipeline-minio-artifact"),
    "no claim": (gone(CLAIM), "there is no claim marco-shared"),
    "one node": (change(CLAIM, "spec", "accessModes", value=["ReadWriteOnce"]), "give it ReadWriteMany"),
    "lost": (change(CLAIM, "status", "phase", value="Lost"), "has lost its volume"),
    "quota of cores": (
        change(f"{CORE}/resourcequotas", *QUOTA, "requests.cpu", value="2500m"),
        "Data asks for 4 of cpu, quota requests.cpu is 2500m",
    ),
    "quota of GPUs": (
        change(f"{CORE}/resourcequotas", *QUOTA, "requests.nvidia.com/gpu", value="1"),
        "Trainer asks for 2 of nvidia.com/gpu",
    ),
    "no GPUs": (
        change("/api/v1/nodes", *GPU, "status", "allocatable", "nvidia.com/gpu", value="0"),
        "less than 2 of nvidia.com/gpu",
    ),
    "another pool": (change("/api/v1/nodes", *GPU, "metadata", "labels", value={}), "no label pool=gpu"),
    "another taint": (
        change("/api/v1/nodes", *GPU, "spec", "taints", value=[{"key": "reserved", "effect": "NoSchedule"}]),
        "taint reserved, not tolerated",
    ),
    "small nodes": (
        change("/api/v1/nodes", "items", 1, "status", "allocatable", "memory", value="4Gi"),
        "Trainer: less than 8e+09 of memory",
    ),
    "no Kubeflow": (gone(ML_PIPELINE), "no ml-pipeline in kubeflow"),
    "Kubeflow down": (change(ML_PIPELINE, "status", value={}), "ml-pipeline has no ready pod"),
    "retries of all": (
        change(
            ARGO, "data", "workflowDefaults", value="spec: {templateDefaults: {retryStrategy: {retryPolicy: Always}}}"
        ),
        "up to 27 pods; set OnError",
    ),
    "root": (gone(f"{KUBEFLOW}/configmaps/pipeline-install-config"), "steps do not run as uid 1000"),
    "no MLflow": (gone(f"{CORE}/endpoints/mlflow"), "there is no Service mlflow"),
    "MLflow down": (change(f"{CORE}/endpoints/mlflow", "subsets", value=None), "Service mlflow has no ready pod"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_found_with_its_fix(kubernetes, check, fault):
    plant, text = FAULTS[fault]
    plant(kubernetes)
    status, lines = check()
    wrong = [line for line in lines[:-1] if f" {cluster_check.WRONG} " in line]
    assert status == 1
    assert any(text in line for line in wrong), lines
    assert len(wrong) == 1, wrong


@pytest.mark.parametrize(
    ("image", "fix"),
    [("registry.example/marco:latest", "compile with it"), ("localhost/marco-pipeline:latest", "push it")],
)
def test_an_image_that_the_cluster_cannot_rely_on_is_found(check, image, fix):
    package = copy.deepcopy(PACKAGE)
    package[0]["deploymentSpec"]["executors"]["Data_executor"]["container"]["image"] = image
    status, lines = check(package)
    assert status == 1
    assert any(image in line and fix in line for line in lines)


def test_what_may_not_be_read_is_not_visible_and_not_wrong(kubernetes, check):
    kubernetes.hidden = {"/api/v1/nodes", ARGO, f"{CORE}/secrets/store"}
    status, lines = check()
    assert status == 0
    hidden = [line.split()[0] for line in lines if cluster_check.UNSEEN in line and "may not read" in line]
    assert hidden == ["secrets", "nodes", "Kubeflow"]


def test_another_file_is_refused(check):
    with pytest.raises(InputError, match=r"is not a compiled pipeline; give the \.yaml file"):
        check([{"kind": "Pod"}, {}])


@pytest.mark.slow
def test_every_compiled_package_is_read(compiled):
    for name in ("paper.yaml", "local.yaml"):
        needs = cluster_check.read_needs(compiled.path(name))
        assert {"Data", "Trainer"} <= set(needs.containers)
        assert needs.training["tracking"]["uri"] == "http://mlflow:5000"
