"""`marco cluster check` against a stand-in for the Kubernetes API, right and with one fault at a time."""

import base64
import copy
import json

import pytest
import typer.testing
import yaml

from marco_model.errors import InputError
from pipelines import cli
from pipelines.cluster_check import needs as package_needs
from tests.fakes import http_server
from tests.k8s import network, rendering

CORE, KUBEFLOW = "/api/v1/namespaces/marco", "/api/v1/namespaces/kubeflow"
POLICIES = "/apis/networking.k8s.io/v1/namespaces"
DNS_SERVICE = "/api/v1/namespaces/kube-system/services/kube-dns"
DNS_PODS = "/api/v1/namespaces/kube-system/pods"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
MLFLOW = "/apis/apps/v1/namespaces/marco/deployments/mlflow"
INSTALLED = f"{KUBEFLOW}/configmaps/pipeline-install-config"
STEPS = ("Data", "Trainer")
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
TRAINING = {
    "tracking": {"uri": "http://mlflow:5000"},
    "data": {"source": "gs://bucket/marco"},
    "placement": {"shared": "/shared/marco", "replicas": {"workers": 2, "service_account": "marco-training"}},
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
        "spec": {"taints": list(taints), "providerID": "gce://crystals/europe-west4-a/node"},
        "status": {
            "allocatable": {"cpu": "7910m", "memory": "30Gi", **allocatable},
            "addresses": [{"type": "InternalIP", "address": "10.164.0.2"}],
            "images": [{"names": ["registry.example/other:1"]}],
        },
    }


def service(selector, port, target):
    """Returns a Service and a pod behind it, whose port has a name."""
    labels = {**selector, "pod-template-hash": "5d8f"}
    containers = [{"ports": [{"name": "web", "containerPort": target}]}]
    return (
        {"spec": {"selector": selector, "ports": [{"port": port, "targetPort": "web"}]}},
        {"metadata": {"labels": labels}, "spec": {"containers": containers}},
    )


def login(registry):
    """Returns a Secret as kubectl create secret docker-registry makes it."""
    auths = {"auths": {registry: {"username": "u", "password": "hunter2", "auth": "dTpodW50ZXIy"}}}
    return {"data": {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()}}


def networked():
    """Returns what stands around a run: the policies of overlays/gpu and of Kubeflow, and the pods behind Services."""
    policies = [item for item in rendering.render("overlays/gpu") if item["kind"] == "NetworkPolicy"]
    objects = {
        f"{POLICIES}/marco/networkpolicies": {"items": copy.deepcopy(policies)},
        f"{POLICIES}/kubeflow/networkpolicies": {"items": copy.deepcopy(network.kubeflow()["policies"])},
        DNS_SERVICE: service({"k8s-app": "kube-dns"}, 53, 53)[0],
        DNS_PODS: {"items": [service({"k8s-app": "kube-dns"}, 53, 53)[1]]},
        "/apis/apps/v1/namespaces/kube-system/daemonsets/node-local-dns": {},
        "/api/v1/namespaces/default/endpoints/kubernetes": {
            "subsets": [{"addresses": [{"ip": "10.164.0.9"}], "ports": [{"port": 443}]}]
        },
        "/api/v1/namespaces/kube-system": {"metadata": {"labels": {}}},
        KUBEFLOW: {"metadata": {"labels": {"istio-injection": "enabled"}}},
        f"{CORE}/services/mlflow": service({"app.kubernetes.io/name": "mlflow"}, 5000, 5000)[0],
        f"{CORE}/pods": {"items": [service({"app.kubernetes.io/name": "mlflow"}, 5000, 5000)[1]]},
        f"{KUBEFLOW}/pods": {"items": []},
    }
    for name, upstream in network.kubeflow()["services"].items():
        for port, target in upstream["ports"].items():
            if port in (8080, 8887, 9000):
                objects[f"{KUBEFLOW}/services/{name}"], pod = service(upstream["labels"], port, target)
                objects[f"{KUBEFLOW}/pods"]["items"].append(pod)
    return objects


@pytest.fixture
def objects():
    """The objects of a cluster that lacks nothing, by path."""
    labels = {"app.kubernetes.io/part-of": "kubeflow-profile", "pod-security.kubernetes.io/enforce": "restricted"}
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    defaults = {"spec": {"templateDefaults": {"retryStrategy": {"limit": "2", "retryPolicy": "OnError"}}}}
    image, variable = "ghcr.io/kubeflow/kfp-api-server:2.17.0", "DEFAULT_SECURITY_CONTEXT_RUN_AS_USER"
    return {
        "/version": {"major": "1", "minor": "34+"},
        "/apis/argoproj.io/v1alpha1": {},
        "/apis/jobset.x-k8s.io/v1alpha2": {},
        CORE: {"metadata": {"labels": labels}},
        f"{CORE}/serviceaccounts/marco-pipeline": {"imagePullSecrets": [{"name": "marco-registry"}]},
        f"{CORE}/serviceaccounts/marco-training": {"imagePullSecrets": [{"name": "marco-registry"}]},
        f"{CORE}/secrets/marco-registry": login("registry.example"),
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
        f"{CORE}/limitranges": {
            "items": [copy.deepcopy(item) for item in rendering.render("base") if item["kind"] == "LimitRange"]
        },
        "/api/v1/nodes": {"items": [node({}), node({"pool": "gpu"}, [taint], **{"nvidia.com/gpu": "4"})]},
        "/apis/apps/v1/namespaces/kubeflow/deployments/ml-pipeline": {
            "spec": {"template": {"spec": {"containers": [{"image": image, "env": [{"name": variable}]}]}}},
            "status": {"readyReplicas": 1},
        },
        INSTALLED: {"data": {"defaultSecurityContextRunAsUser": "1000", "defaultSecurityContextRunAsNonRoot": "true"}},
        f"{KUBEFLOW}/configmaps/workflow-controller-configmap": {
            "data": {"workflowDefaults": yaml.safe_dump(defaults)}
        },
        f"{CORE}/endpoints/mlflow": {"subsets": [{"addresses": [{"ip": "10.0.0.7"}]}]},
        MLFLOW: {
            "spec": {"template": {"spec": {"containers": [{"args": ["--allowed-hosts=mlflow:5000,*.svc:5000"]}]}}}
        },
        CLASSES: {
            "items": [
                {"metadata": {"name": "standard-rwx"}, "provisioner": "filestore.csi.storage.gke.io"},
                {
                    "metadata": {
                        "name": "standard-rwo",
                        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                    },
                    "provisioner": "pd.csi.storage.gke.io",
                },
            ]
        },
        **networked(),
    }


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
    assert not [value for value in ("YQ==", "c2VjcmV0", "hunter2", "dTpodW50ZXIy") if value in text]


def change(path, *keys, value):
    """Returns a fault: the value at `keys` of the object at `path` is another, without keys the object itself."""

    def plant(kubernetes):
        if not keys:
            kubernetes.objects[path] = value
            return
        target = kubernetes.objects[path]
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return plant


def gone(path):
    return lambda kubernetes: kubernetes.objects.pop(path)


def waiting(storage_class):
    """Returns a fault: the claim waits for a volume of this class, of the default one where it is empty."""

    def plant(kubernetes):
        spec = {"accessModes": ["ReadWriteMany"], **({"storageClassName": storage_class} if storage_class else {})}
        kubernetes.objects[CLAIM] = {"spec": spec, "status": {"phase": "Pending"}}

    return plant


def policy(kubernetes, name):
    listed = kubernetes.objects[f"{POLICIES}/marco/networkpolicies"]["items"]
    return listed, next(item for item in listed if item["metadata"]["name"] == name)


def without_policy(name):
    def plant(kubernetes):
        listed, item = policy(kubernetes, name)
        listed.remove(item)

    return plant


def without_peer(name, text):
    """Returns a fault: a policy lacks the peers in which this text occurs."""

    def plant(kubernetes):
        rule = policy(kubernetes, name)[1]["spec"]["egress"][0]
        rule["to"] = [peer for peer in rule["to"] if text not in json.dumps(peer)]

    return plant


def close_service(name):
    """Returns a fault: Kubeflow lets nobody in to the pods of this Service."""

    def plant(kubernetes):
        listed = kubernetes.objects[f"{POLICIES}/kubeflow/networkpolicies"]["items"]
        for item in listed:
            if item["metadata"]["name"] == name:
                item["spec"]["ingress"] = []

    return plant


def no_dns_server(kubernetes):
    kubernetes.objects[DNS_PODS] = {"items": []}
    for item in kubernetes.objects["/api/v1/nodes"]["items"]:
        del item["spec"]["providerID"]


def cilium(kubernetes):
    kubernetes.objects["/api/v1/namespaces/kube-system/configmaps/cilium-config"] = {
        "data": {"enable-policy": "default"}
    }
    subset = {"addresses": [{"ip": "10.164.0.2"}], "ports": [{"port": 443}]}
    kubernetes.objects["/api/v1/namespaces/default/endpoints/kubernetes"] = {"subsets": [subset]}


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
    "no namespace": (gone(CORE), "make the profile of that name"),
    "another label": (
        change(CORE, "metadata", "labels", "app.kubernetes.io/part-of", value="marco"),
        "kubectl label --overwrite namespace marco app.kubernetes.io/part-of=kubeflow-profile",
    ),
    "another level": (
        change(CORE, "metadata", "labels", "pod-security.kubernetes.io/enforce", value="privileged"),
        "Pod Security level is privileged",
    ),
    "no account": (gone(f"{CORE}/serviceaccounts/marco-pipeline"), "no service account marco-pipeline"),
    "no replicas' account": (gone(f"{CORE}/serviceaccounts/marco-training"), "no service account marco-training"),
    "no results": (deny("create workflowtaskresults"), "may not create workflowtaskresults"),
    "no JobSets": (deny("delete jobsets"), "may not delete jobsets"),
    "no keys of the object store": (deny("get secrets"), "may not get secrets"),
    "no look at replicas": (deny("list pods"), "may not list pods"),
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
    "quota of what pods may use": (
        change(f"{CORE}/resourcequotas", *QUOTA, "limits.memory", value="1Gi"),
        "of memory, quota limits.memory is 1Gi",
    ),
    "quota of GPUs": (
        change(f"{CORE}/resourcequotas", *QUOTA, "requests.nvidia.com/gpu", value="1"),
        "Trainer asks for 2 of nvidia.com/gpu",
    ),
    "quota of replicas": (
        change(f"{CORE}/resourcequotas", *QUOTA, "limits.memory", value="12Gi"),
        "cluster.replicas.worker (2) asks for 17.2 GB of memory, quota limits.memory is 12Gi",
    ),
    "quota of limits": (
        change(f"{CORE}/resourcequotas", *QUOTA, "limits.cpu", value="64"),
        "quota limits.cpu refuses containers that name none",
    ),
    "no defaults": (gone(f"{CORE}/limitranges"), "quota requests.cpu refuses containers that name none"),
    "a limit of pods": (
        change(f"{CORE}/limitranges", "items", 0, "spec", "limits", 0, "max", value={"memory": "4Gi"}),
        "Data asks for 8 GB of memory, the LimitRange's max is 4Gi",
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
        "Trainer: less than 8 GB of memory",
    ),
    "no Kubeflow": (gone(ML_PIPELINE), "no ml-pipeline in kubeflow"),
    "Kubeflow down": (change(ML_PIPELINE, "status", value={}), "ml-pipeline has no ready pod"),
    "retries of all": (
        change(
            ARGO, "data", "workflowDefaults", value="spec: {templateDefaults: {retryStrategy: {retryPolicy: Always}}}"
        ),
        "up to 27 pods; set OnError",
    ),
    "root": (gone(INSTALLED), "defaultSecurityContextRunAsUser not set"),
    "root may be": (
        change(INSTALLED, "data", value={"defaultSecurityContextRunAsUser": "1000"}),
        "defaultSecurityContextRunAsNonRoot not set in pipeline-install-config",
    ),
    "Kubeflow 2.15": (
        change(ML_PIPELINE, *("spec", "template", "spec", "containers"), value=[{"image": "api-server:2.15.0"}]),
        "ml-pipeline 2.15.0 cannot choose the user of steps",
    ),
    "no MLflow": (gone(f"{CORE}/endpoints/mlflow"), "there is no Service mlflow"),
    "MLflow's hosts": (
        change(
            MLFLOW,
            *("spec", "template", "spec", "containers"),
            value=[{"args": ["--allowed-hosts=localhost:5000,mlflow.marco:5000"]}],
        ),
        "add it to --allowed-hosts of Deployment mlflow",
    ),
    "login elsewhere": (
        change(f"{CORE}/secrets/marco-registry", value=login("ghcr.io")),
        "for ghcr.io, and the image is at registry.example; make marco-registry with --docker-server=registry.example",
    ),
    "no login": (
        change(f"{CORE}/secrets/marco-registry", value={"data": {"password": "YQ=="}}),
        "Secret marco-registry holds no login; make it with kubectl create secret docker-registry",
    ),
    "no class": (waiting("fast"), "there is no storage class fast; name one of standard-rwx, standard-rwo"),
    "a class for one node": (waiting(""), "standard-rwo (pd.csi.storage.gke.io) makes disks for one node"),
    "read only": (change(CLAIM, "spec", "accessModes", value=["ReadOnlyMany"]), "give it ReadWriteMany"),
    "no DNS server": (no_dns_server, "kube-dns of kube-system has no pod"),
    "kube-dns closed": (
        without_peer("dns", "namespaceSelector"),
        "steps to kube-dns of kube-system, port 53, is stopped",
    ),
    "the nodes' cache closed": (
        without_peer("dns", "169.254.20.10/32"),
        "steps to the cache on each node, port 53, is stopped by the egress of marco",
    ),
    "Cloud DNS closed": (without_peer("dns", "169.254.169.254/32"), "steps to Cloud DNS, port 53, is stopped"),
    "no metadata server": (
        without_policy("metadata-server"),
        "replicas to the metadata server 169.254.169.252, port 988, is stopped by the egress of marco",
    ),
    "no way to replicas": (without_policy("training"), "replicas to each other, port 2222, is stopped by the egress"),
    "MLflow closed": (without_policy("mlflow"), "steps to MLflow, port 5000, is stopped by the ingress of marco"),
    "only DNS": (
        without_policy("steps"),
        "steps to the Kubernetes API at 10.164.0.9, port 443, is stopped by the egress",
    ),
    "Kubeflow closed": (
        close_service("ml-pipeline"),
        "steps to ml-pipeline of kubeflow, their cache, port 8887, is stopped by the ingress of kubeflow",
    ),
    "object store closed": (
        close_service("seaweedfs"),
        "steps to seaweedfs of kubeflow, their artifacts, port 8333, is stopped by the ingress of kubeflow",
    ),
    "Cilium": (cilium, "set policy-cidr-match-mode to nodes in ConfigMap cilium-config"),
    "MLflow down": (change(f"{CORE}/endpoints/mlflow", "subsets", value=None), "Service mlflow has no ready pod"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_is_found_with_its_fix(kubernetes, check, fault):
    plant, text = FAULTS[fault]
    plant(kubernetes)
    status, lines = check()
    wrong = [line for line in lines[:-1] if f" {package_needs.WRONG} " in line]
    assert status == 1
    assert any(text in line for line in wrong), lines
    assert len({line.split()[0] for line in wrong}) == 1, wrong


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
    hidden = [line.split()[0] for line in lines if package_needs.UNSEEN in line and "may not read" in line]
    assert hidden == ["secrets", "nodes", "Kubeflow"]


def test_a_namespace_may_be_baseline_for_the_sake_of_previews(kubernetes, check):
    kubernetes.objects[CORE]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "baseline"
    assert check()[0] == 0


def test_a_step_that_waits_for_what_others_use_of_a_quota_is_no_fault(kubernetes, check):
    kubernetes.objects[f"{CORE}/resourcequotas"]["items"][0]["status"] = {"used": {"requests.cpu": "125500m"}}
    status, lines = check()
    assert status == 0
    (line,) = (line for line in lines if line.startswith("quota"))
    assert "Data asks for 4 of cpu and waits while 125500m of quota requests.cpu, 128, are in use" in line
    assert "Pusher" not in line


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("docker.io/me/marco", "https://index.docker.io/v1/"),
        ("me/marco", "https://index.docker.io/v1/"),
        ("eu.registry.example/marco", "*.registry.example"),
    ],
)
def test_a_login_is_found_by_the_names_that_kubernetes_takes_for_its_registry(kubernetes, check, image, host):
    kubernetes.objects[f"{CORE}/secrets/marco-registry"] = login(host)
    package = copy.deepcopy(PACKAGE)
    for executor in package[0]["deploymentSpec"]["executors"].values():
        executor["container"]["image"] = f"{image}@sha256:{'0a' * 32}"
    status, lines = check(package)
    assert status == 0, lines
    assert any("has a login for" in line for line in lines)


def test_a_login_that_has_expired_is_not_taken_for_hidden_objects(kubernetes, check):
    kubernetes.status = 401
    with pytest.raises(InputError, match=r"the Kubernetes API does not know you \(401\); log in again"):
        check()


def test_a_login_page_is_not_taken_for_an_answer(kubernetes, check, monkeypatch):
    page = http_server.Answer(200, b"<html>Log in</html>", {"Content-Type": "text/html"})
    monkeypatch.setattr(kubernetes, "respond", lambda request: page)
    with pytest.raises(InputError, match="answers with a page, not as the Kubernetes API"):
        check()


def test_replicas_too_large_for_every_node_are_found(check):
    training = copy.deepcopy(TRAINING)
    training["placement"]["replicas"]["worker"] = {"memory": "64Gi"}
    status, lines = check(with_training(training))
    assert status == 1
    assert any("no node takes cluster.replicas.worker (2): less than 68.7 GB of memory" in line for line in lines)


@pytest.mark.parametrize(("provider", "wrong"), [("gce://crystals/a/node", 0), ("kind://docker/kind/node", 1)])
def test_a_taint_of_gpus_is_tolerated_where_google_adds_the_toleration(kubernetes, check, provider, wrong):
    for item in kubernetes.objects["/api/v1/nodes"]["items"]:
        item["spec"]["providerID"] = provider
    package = copy.deepcopy(PACKAGE)
    package[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["Trainer_executor"]["tolerations"] = []
    status, lines = check(package)
    assert status == wrong
    assert wrong == sum("taint nvidia.com/gpu, not tolerated" in line for line in lines)


def with_training(training):
    """Returns the package with other settings of the Trainer."""
    package = copy.deepcopy(PACKAGE)
    parameters = package[0]["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    parameters["training"]["runtimeValue"]["constant"] = json.dumps(training)
    return package


def test_what_was_found_before_something_hidden_is_kept(kubernetes, check):
    kubernetes.hidden = {f"{CORE}/secrets/marco-registry"}
    package = copy.deepcopy(PACKAGE)
    package[0]["deploymentSpec"]["executors"]["Data_executor"]["container"]["image"] = "registry.example/marco:latest"
    status, lines = check(package)
    assert status == 1
    assert [line for line in lines if package_needs.WRONG in line and "has no digest" in line]
    assert [line for line in lines if line.startswith("image") and package_needs.UNSEEN in line]


def test_another_file_is_refused(check):
    with pytest.raises(InputError, match="is not a compiled pipeline; give the file that marco compile wrote"):
        check([{"kind": "Pod"}, {}])


@pytest.mark.slow
def test_every_compiled_package_is_read(compiled):
    for name in ("paper.yaml", "local.yaml"):
        needs = package_needs.read(compiled.path(name))
        assert {"Data", "Trainer"} <= set(needs.containers)
        assert needs.training["tracking"]["uri"] == "http://mlflow:5000"
