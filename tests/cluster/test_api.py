"""What an API server alone can say of k8s/ and of a training's JobSet: `make test-cluster` with `-k api`."""

from __future__ import annotations

import copy

import pytest

from components.machines import Placement, Volume
from components.trainer import jobset as jobsets
from components.trainer.jobset_api import Pace
from marco_model.recipe import Engine
from tests.cluster.conftest import apply, moved
from tests.k8s import rendering
from tests.k8s.test_jobset import ENGINES

OVERLAYS = ["overlays/gpu", "overlays/small"]
# Resources that are not Kubernetes' own, by kind: a cluster may lack them.
CUSTOM = {"InferenceService": "inferenceservices.", "ServingRuntime": "servingruntimes.", "JobSet": "jobsets."}
DRY = "--dry-run=server"


@pytest.fixture(scope="module")
def resources(kubectl) -> list[str]:
    """The names of what the server has, such as jobsets.jobset.x-k8s.io."""
    return kubectl.run("api-resources", "--output=name").output.split()


@pytest.fixture
def jobset(request, namespace, resources) -> dict:
    """The JobSet of a training in the namespace."""
    if not any(name.startswith(CUSTOM["JobSet"]) for name in resources):
        pytest.skip("the cluster has no JobSet")
    placement = Placement(
        image=f"registry.example/marco-pipeline@sha256:{'a' * 64}",
        shared="/shared/marco",
        volumes=(Volume(claim="marco-shared", path="/shared"),),
        replicas=ENGINES[request.param].model_copy(update={"priority_class": ""}),
    )
    step = jobsets.Step(namespace=namespace, attempt="1a2b", run="run 7", pod="marco-x7k2p-trainer", uid="0f-1e")
    engine = Engine(kind=request.param)
    return jobsets.manifest("9f8e7d", engine, placement, step, "/shared/job.json", "/shared/heartbeat", Pace())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_accepted(kubectl, namespace, resources, overlay):
    refused = {}
    for item in moved(rendering.render(overlay), namespace):
        custom = CUSTOM.get(item["kind"])
        if custom and not any(name.startswith(custom) for name in resources):
            continue
        answer = apply(kubectl, item, DRY, "--force-conflicts")
        if answer.status:
            refused[rendering.title(item)] = answer.error
    assert refused == {}


def pod_of(template: dict, namespace: str) -> dict:
    """Returns a pod of a template; its priority class, which is the cluster's, is left out."""
    spec = {key: value for key, value in template["spec"].items() if key != "priorityClassName"}
    metadata = {**template.get("metadata", {}), "name": "pod", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(spec)}


def test_every_pod_is_admitted_and_a_privileged_one_is_not(kubectl, namespace):
    pods = [
        pod_of(template, namespace)
        for _, template in rendering.pods(moved(rendering.render("overlays/small"), namespace))
    ]
    assert [answer.error for pod in pods if (answer := apply(kubectl, pod, DRY)).status] == []
    pods[0]["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert 'violates PodSecurity "restricted' in apply(kubectl, pods[0], DRY).error


def test_a_pod_over_the_quota_is_refused(kubectl, namespace):
    template = next(template for _, template in rendering.pods(rendering.render("overlays/small")))
    pod = pod_of(template, namespace)
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "4"
    assert "exceeded quota: marco" in apply(kubectl, pod, DRY).error


GRANTED = {
    ("create", "jobsets.jobset.x-k8s.io"),
    ("delete", "jobsets.jobset.x-k8s.io"),
    ("list", "pods"),
    ("get", "pods/log"),
    ("get", "configmaps/kfp-launcher"),
    ("get", "secrets/mlpipeline-minio-artifact"),
    ("create", "workflowtaskresults.argoproj.io"),
    ("patch", "workflowtaskresults.argoproj.io"),
}
REFUSED = {
    ("get", "secrets/marco-postgres"),
    ("list", "secrets"),
    ("create", "pods"),
    ("delete", "pods"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("update", "configmaps/kfp-launcher"),
}


@pytest.mark.parametrize("account", ["marco-pipeline", "marco-training", "marco-serving", "mlflow", "postgres"])
def test_an_account_may_do_what_it_needs_and_nothing_else(kubectl, namespace, account):
    allowed = {
        (verb, resource)
        for verb, resource in sorted(GRANTED | REFUSED)
        if kubectl.run(
            "auth",
            "can-i",
            verb,
            resource.replace("pods/log", "pods"),
            *(["--subresource=log"] if resource == "pods/log" else []),
            f"--as=system:serviceaccount:{namespace}:{account}",
            f"--namespace={namespace}",
        ).output.strip()
        == "yes"
    }
    assert allowed == (GRANTED if account == "marco-pipeline" else set())


@pytest.mark.parametrize("jobset", ENGINES, indirect=True)
def test_jobsets_webhook_takes_a_training_and_refuses_a_broken_one(kubectl, jobset):
    answer = apply(kubectl, jobset, DRY)
    assert answer.status == 0, answer.error
    jobset["spec"]["successPolicy"]["targetReplicatedJobs"] = ["nobody"]
    assert "replicatedJob name 'nobody' does not appear" in apply(kubectl, jobset, DRY).error
