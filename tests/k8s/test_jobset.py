"""The JobSet of a training is valid and restricted, and everything it names exists in the namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from components.machines import Placement, Replicas, Resources, Secret, Toleration, Volume
from components.trainer import jobset as jobsets
from components.trainer.jobset import PORT, Step
from components.trainer.jobset_api import Pace
from marco_model.recipe import Engine
from tests.k8s import network, policy, references, rendering, restricted, validation

ENGINES = {
    "multi_worker": Replicas(
        workers=3,
        restarts=2,
        priority_class="marco-training",
        worker=Resources(cpu=6, accelerators=1, shared_memory="8Gi"),
    ),
    "parameter_server": Replicas(
        workers=2,
        parameter_servers=2,
        worker=Resources(node_selector={"pool": "gpu"}, tolerations=(Toleration(key="nvidia.com/gpu"),)),
    ),
}


@pytest.fixture(params=ENGINES)
def jobset(request):
    """The JobSet of a site that was set up with k8s/, with every option of a placement."""
    site = yaml.safe_load((rendering.K8S / "site.yaml").read_text())["cluster"]
    placement = Placement(
        image=f"registry.example/marco-pipeline@sha256:{'a' * 64}",
        shared=site["shared"],
        volumes=tuple(Volume(**volume) for volume in site["volumes"]),
        secrets=(
            Secret(name="marco-object-store", variables={"AWS_SECRET_ACCESS_KEY": "secret-key"}, path="/secrets"),
        ),
        environment={"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"},
        replicas=ENGINES[request.param],
    )
    step = Step(namespace="marco", attempt="1a2b", run="run 7", pod="marco-x7k2p-trainer", uid="0f-1e")
    return jobsets.manifest(
        "9f8e7d", Engine(kind=request.param), placement, step, "/shared/job.json", "/shared/heartbeat", Pace()
    )


@pytest.mark.parametrize("version", ["1.32", "1.37"])
def test_the_jobset_is_valid(jobset, version):
    assert validation.problems(jobset, version) == []


def test_every_replica_is_restricted(jobset):
    rules = restricted.RESTRICTED | policy.OWN
    assert len(list(rendering.pods([jobset]))) == len(jobset["spec"]["replicatedJobs"])
    assert policy.findings(rules, rendering.pods([jobset])) == []
    assert policy.tokens([jobset]) == []
    assert policy.sidecars([jobset]) == []


def test_everything_it_names_exists(jobset, base):
    secrets = references.secrets_to_make((rendering.K8S / "README.md").read_text())
    assert references.missing([*base, jobset], secrets) == []
    assert jobset["metadata"]["namespace"] == rendering.pick(base, "Namespace")["metadata"]["name"]


def test_replicas_reach_each_other_and_mlflow(jobset, base):
    mlflow = network.Peer({"app.kubernetes.io/name": "mlflow"})
    replicas = [network.Peer(pod["metadata"]["labels"]) for _, pod in rendering.pods([jobset])]
    for replica in replicas:
        assert network.allowed(base, replica, mlflow, 5000)
        for other in replicas:
            assert network.allowed(base, replica, other, PORT)


def test_the_role_grants_exactly_the_verbs_that_the_step_uses(jobset, base):
    group, _ = jobset["apiVersion"].split("/")
    granted = {
        verb
        for rule in rendering.pick(base, "Role")["rules"]
        if group in rule["apiGroups"] and "jobsets" in rule["resources"]
        for verb in rule["verbs"]
    }
    sources = Path(jobsets.__file__).parent.glob("*.py")
    used = {verb for source in sources for verb in re.findall(r"\.(\w+?)_namespaced_custom_object", source.read_text())}
    assert granted == used


BREAKAGES = {
    "an unknown field": lambda item: item["spec"].update(replicas=2),
    "another version": lambda item: item.update(apiVersion="jobset.x-k8s.io/v1beta1"),
    "an unknown value": lambda item: item["spec"]["successPolicy"].update(operator="Most"),
    "a wrong type": lambda item: item["spec"]["failurePolicy"].update(maxRestarts="2"),
    "a missing name": lambda item: item["spec"]["replicatedJobs"][0].pop("name"),
    "an unknown field of a job": lambda item: item["spec"]["replicatedJobs"][0].update(count=2),
    "an unknown field of a job's spec": lambda item: _job(item)["spec"].update(backOffLimit=0),
    "an unknown field of a pod": lambda item: _job(item)["spec"]["template"]["spec"].update(restart="Never"),
}


def _job(item):
    return item["spec"]["replicatedJobs"][0]["template"]


@pytest.mark.parametrize("change", BREAKAGES)
def test_a_broken_jobset_is_found(jobset, change):
    BREAKAGES[change](jobset)
    assert validation.problems(jobset, "1.32")


def test_a_jobset_that_is_not_restricted_is_found(jobset):
    pod = _job(jobset)["spec"]["template"]["spec"]
    pod["containers"][0]["securityContext"]["capabilities"] = {"add": ["SYS_PTRACE"]}
    findings = policy.findings(restricted.RESTRICTED, rendering.pods([jobset]))
    assert [what.split(": ")[1] for what in findings] == ["capabilities", "capabilities"]
