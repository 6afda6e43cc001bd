import json

import pytest

from components.machines import Placement, Replicas, Resources, Secret, Toleration, Volume
from components.trainer import jobset
from components.trainer.jobset_api import PACE
from marco_model.errors import InputError
from marco_model.recipe import Engine
from tests.fakes import jobset_rules

STEP = jobset.Step(namespace="marco", attempt="1f", run="weekly/3", pod="weekly-3-trainer", uid="0-1")
WORKER = Resources(
    cpu=12,
    memory="64Gi",
    accelerators=2,
    shared_memory="8Gi",
    node_selector={"pool": "gpu"},
    tolerations=(Toleration(key="nvidia.com/gpu", effect="NoSchedule"),),
)


def placement(workers=3, parameter_servers=0, **options):
    replicas = Replicas(
        workers=workers, parameter_servers=parameter_servers, worker=WORKER, parameter_server=Resources(memory="16Gi")
    )
    return Placement(
        image="registry.example/marco@sha256:0",
        shared="/shared/marco",
        volumes=(Volume(claim="marco-shared", path="/shared"),),
        secrets=(Secret(name="store", variables={"KEY": "key"}), Secret(name="files", path="/etc/store")),
        environment={"A": "b"},
        replicas=replicas,
        **options,
    )


def manifest(kind="multi_worker", **counts):
    return jobset.manifest(
        "0a1b", Engine(kind=kind), placement(**counts), STEP, "/shared/job.json", "/shared/beat", PACE
    )


def pod_of(body, job):
    spec = next(replicated for replicated in body["spec"]["replicatedJobs"] if replicated["name"] == job)["template"][
        "spec"
    ]
    return spec["template"]["spec"]


@pytest.mark.parametrize(
    ("kind", "counts", "jobs"),
    [
        ("multi_worker", {"workers": 2}, {"chief": 1, "worker": 1}),
        ("multi_worker", {"workers": 3}, {"chief": 1, "worker": 2}),
        ("parameter_server", {"workers": 3, "parameter_servers": 2}, {"chief": 1, "worker": 2, "ps": 2}),
    ],
)
def test_the_schemas_and_the_restricted_standard_allow_it(problems, kind, counts, jobs):
    body = manifest(kind, **counts)
    assert problems(body) == []
    assert {job["name"]: job["replicas"] for job in body["spec"]["replicatedJobs"]} == jobs


def test_a_field_that_jobset_does_not_have_is_found(problems):
    body = manifest()
    body["spec"]["successPolicy"]["targets"] = ["chief"]
    assert problems(body)


def test_every_replica_knows_all_others_by_their_jobset_host_names():
    body = manifest("parameter_server", workers=3, parameter_servers=1)
    variables = {variable["name"]: variable for variable in pod_of(body, "worker")["containers"][0]["env"]}
    config = json.loads(variables["TF_CONFIG"]["value"])
    assert config["cluster"] == {
        "chief": ["marco-0a1b-chief-0-0.marco-0a1b:2222"],
        "worker": ["marco-0a1b-worker-0-0.marco-0a1b:2222", "marco-0a1b-worker-1-0.marco-0a1b:2222"],
        "ps": ["marco-0a1b-ps-0-0.marco-0a1b:2222"],
    }
    assert config["task"] == {"type": "worker", "index": "$(MARCO_INDEX)"}
    # Kubernetes substitutes only variables that come earlier in the list.
    assert list(variables).index("MARCO_INDEX") < list(variables).index("TF_CONFIG")


def test_a_replica_gets_the_resources_of_the_configuration():
    body = manifest("parameter_server", workers=2, parameter_servers=1)
    chief, server = pod_of(body, "chief"), pod_of(body, "ps")
    limits = {"cpu": "12", "memory": "64Gi", "nvidia.com/gpu": "2"}
    assert chief["containers"][0]["resources"] == {"requests": limits, "limits": limits}
    assert server["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "16Gi"}
    assert chief["nodeSelector"] == {"pool": "gpu"}
    assert chief["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "nodeSelector" not in server
    mounts = {mount["mountPath"]: mount["name"] for mount in chief["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in chief["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert volumes[mounts["/shared"]]["persistentVolumeClaim"]["claimName"] == "marco-shared"
    assert volumes[mounts["/etc/store"]]["secret"] == {"secretName": "files"}
    assert volumes[mounts["/tmp"]]["emptyDir"] == {}
    assert (chief["serviceAccountName"], chief["automountServiceAccountToken"]) == ("marco-training", False)
    variables = chief["containers"][0]["env"]
    environment = {variable["name"]: variable.get("value") or variable["valueFrom"] for variable in variables}
    assert environment["A"] == "b"
    assert environment["KEY"] == {"secretKeyRef": {"name": "store", "key": "key"}}


def test_it_is_owned_by_the_pod_of_the_step_and_labelled_with_the_run():
    body = manifest()
    assert body["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "weekly-3-trainer", "uid": "0-1"}
    ]
    assert body["metadata"]["labels"]["marco/run"] == "weekly-3"
    assert body["spec"]["ttlSecondsAfterFinished"] == PACE.kept


@pytest.mark.parametrize(
    ("kind", "counts", "fix"),
    [
        ("one_device", {}, "set engine.kind to multi_worker or parameter_server"),
        ("mirrored", {}, "set engine.kind to multi_worker or parameter_server"),
        ("multi_worker", {"workers": 1}, "at least 2 workers"),
        ("multi_worker", {"parameter_servers": 1}, "multi_worker takes none"),
        ("parameter_server", {}, "parameter_server needs at least 1"),
    ],
)
def test_an_engine_that_does_not_fit_the_replicas_is_refused(kind, counts, fix):
    with pytest.raises(InputError, match=f"engine.kind is {kind} and cluster.replicas has workers .*{fix}"):
        manifest(kind, **counts)


@pytest.mark.parametrize(
    ("disrupted", "action"), [(True, "RestartJobSetAndIgnoreMaxRestarts"), (False, "RestartJobSet")]
)
def test_only_failures_count_as_restarts(disrupted, action):
    spec = manifest("parameter_server", workers=2, parameter_servers=1)["spec"]
    for job in ("chief", "ps"):
        reason = jobset_rules.failure_reason(spec, job, disrupted)
        assert jobset_rules.action(spec["failurePolicy"], {reason}) == action
    # An asynchronous worker comes back by itself; the others go on meanwhile.
    assert jobset_rules.failure_reason(spec, "worker", True) == ""
    # Others of the set fail with the one that is lost; the set still restarts uncounted.
    mixed = {jobset_rules.failure_reason(spec, "chief", True), jobset_rules.failure_reason(spec, "ps", False)}
    assert jobset_rules.action(spec["failurePolicy"], mixed) == "RestartJobSetAndIgnoreMaxRestarts"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "1st"}, "is not a name of a rule"),
        ({"action": "RestartJob"}, "is not an action"),
        ({"onJobFailureReasons": ["DisruptionTarget"]}, "is not a reason"),
        ({"targetReplicatedJobs": ["evaluator"]}, "there is no job evaluator"),
    ],
)
def test_jobsets_webhook_would_refuse_other_rules(change, problem):
    body = manifest()
    assert jobset_rules.problems(body) == []
    body["spec"]["failurePolicy"]["rules"] = [{**body["spec"]["failurePolicy"]["rules"][0], **change}]
    assert any(problem in text for text in jobset_rules.problems(body))
