"""The manifests meet the restricted Pod Security Standard and the project's own rules, and each check can fail."""

from __future__ import annotations

import pytest

from components.machines import quantity_bytes
from tests.k8s import policy, rendering, restricted


def test_every_pod_is_restricted(objects):
    assert {name for name, _ in rendering.pods(objects)} - {"CronJob/marco-monitoring"} == {
        "Deployment/mlflow",
        "StatefulSet/postgres",
        "InferenceService/marco",
        "Job/marco-shared",
    }
    assert policy.findings(restricted.RESTRICTED, rendering.pods(objects)) == []


def test_the_namespace_enforces_the_restricted_standard(base):
    labels = rendering.pick(base, "Namespace")["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


def test_every_pod_meets_the_projects_own_rules(objects):
    assert policy.findings(policy.OWN, rendering.pods(objects)) == []


def test_the_quota_bounds_what_pods_may_use_beyond_their_requests(objects):
    hard = rendering.pick(objects, "ResourceQuota")["spec"]["hard"]
    requested, limited = (quantity_bytes(hard[f"{kind}.memory"]) for kind in ("requests", "limits"))
    assert requested < limited <= 3 * requested
    # A quota of limits refuses containers without one.
    (limits,) = rendering.pick(objects, "LimitRange")["spec"]["limits"]
    assert limits["type"] == "Container" and limits["default"]["memory"]


def test_serving_pods_have_probes(objects):
    assert policy.probes(objects) == []


def test_no_pod_gets_a_sidecar(objects):
    assert policy.sidecars(objects) == []


def test_no_pod_gets_a_token_and_no_role_a_wildcard(objects):
    assert policy.tokens(objects) == []
    assert policy.wildcards(objects) == []
    assert policy.secrets_in_manifests(objects) == []


def test_the_role_grants_exactly_these_verbs(base):
    granted = {
        (group, resource, verb, tuple(rule.get("resourceNames", [])))
        for rule in rendering.pick(base, "Role")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    jobsets = {("jobset.x-k8s.io", "jobsets", verb, ()) for verb in ("create", "get", "delete")}
    pods = {("", "pods", verb, ()) for verb in ("get", "list", "watch")} | {("", "pods/log", "get", ())}
    kubeflow = {
        ("", "configmaps", "get", ("kfp-launcher",)),
        ("", "secrets", "get", ("mlpipeline-minio-artifact",)),
        ("argoproj.io", "workflowtaskresults", "create", ()),
        ("argoproj.io", "workflowtaskresults", "patch", ()),
        ("argoproj.io", "workflowtasksets", "list", ()),
        ("argoproj.io", "workflowtasksets", "watch", ()),
        ("argoproj.io", "workflowtasksets/status", "patch", ()),
    }
    assert granted == jobsets | pods | kubeflow


def _pod(**changes):
    context = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "main",
        "image": f"registry.example/main@sha256:{'a' * 64}",
        "securityContext": context,
        "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
    }
    spec = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    for place, value in changes.items():
        *path, last = place.split("__")
        target = spec
        for step in path:
            target = target.setdefault(step, {}) if step != "container" else container
        target[last] = value
    return {"spec": spec}


BREAKAGES = {
    "host_process": [{"securityContext__windowsOptions": {"hostProcess": True}}],
    "host_namespaces": [{"hostNetwork": True}, {"hostPID": True}, {"hostIPC": True}],
    "privileged": [{"container__securityContext__privileged": True}],
    "capabilities": [
        {"container__securityContext__capabilities": {}},
        {"container__securityContext__capabilities": {"drop": ["NET_RAW"]}},
        {"container__securityContext__capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
    ],
    "volume_types": [
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
        {"volumes": [{"name": "n", "nfs": {}}]},
    ],
    "host_ports": [{"container__ports": [{"containerPort": 80, "hostPort": 80}]}],
    "host_probes": [
        {"container__livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 1}}},
        {"container__lifecycle": {"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 1}}}},
    ],
    "app_armor": [{"container__securityContext__appArmorProfile": {"type": "Unconfined"}}],
    "se_linux": [
        {"securityContext__seLinuxOptions": {"type": "spc_t"}},
        {"securityContext__seLinuxOptions": {"user": "x"}},
    ],
    "proc_mount": [{"container__securityContext__procMount": "Unmasked"}],
    "sysctls": [{"securityContext__sysctls": [{"name": "kernel.msgmax", "value": "1"}]}],
    "privilege_escalation": [
        {"container__securityContext__allowPrivilegeEscalation": True},
        {"container__securityContext__allowPrivilegeEscalation": None},
    ],
    "non_root": [{"securityContext__runAsNonRoot": False}, {"container__securityContext__runAsNonRoot": False}],
    "root_user": [{"securityContext__runAsUser": 0}, {"container__securityContext__runAsUser": 0}],
    "seccomp": [
        {"securityContext__seccompProfile": {}},
        {"container__securityContext__seccompProfile": {"type": "Unconfined"}},
    ],
    "read_only_root": [{"container__securityContext__readOnlyRootFilesystem": False}],
    "resources": [{"container__resources": {}}, {"container__resources": {"requests": {"cpu": 1, "memory": "1Gi"}}}],
    "image_digests": [
        {"container__image": image}
        for image in (
            "docker.io/library/postgres:17",
            f"postgres@sha256:{'a' * 64}",
            "docker.io/library/postgres@sha256:abc",
            f"docker.io/library/postgres@sha256:{'0' * 64}",
        )
    ],
    "secret_values": [
        {"container__env": [{"name": "PGPASSWORD", "value": "1234"}]},
        {"container__args": ["--backend-store-uri=postgresql://mlflow:1234@postgres/mlflow"]},
    ],
}


def test_a_good_pod_passes():
    rules = restricted.RESTRICTED | policy.OWN
    assert policy.findings(rules, [("Pod/main", _pod())]) == []
    assert set(BREAKAGES) == set(rules), "each rule has a breakage that it reports"


@pytest.mark.parametrize(
    ("rule", "change"), [(rule, change) for rule, changes in BREAKAGES.items() for change in changes]
)
def test_each_breakage_is_reported_by_its_rule_alone(rule, change):
    findings = policy.findings(restricted.RESTRICTED | policy.OWN, [("Pod/main", _pod(**change))])
    assert [what.split(": ")[1] for what in findings] == [rule]


def test_init_containers_are_checked():
    pod = _pod()
    pod["spec"]["initContainers"] = [{"name": "first", "image": "main:latest"}]
    findings = policy.findings(restricted.RESTRICTED | policy.OWN, [("Pod/main", pod)])
    assert {what.split(": ")[1] for what in findings} == {
        "capabilities",
        "privilege_escalation",
        "read_only_root",
        "resources",
        "image_digests",
    }


@pytest.mark.parametrize("field", ["verbs", "resources", "apiGroups"])
def test_a_wildcard_is_reported(base, field):
    rendering.pick(base, "Role")["rules"][0][field] = ["*"]
    assert policy.wildcards(base) == [f"Role/marco-pipeline: {field} ['*']"]


def test_each_check_of_all_objects_can_fail(base):
    pick = rendering.pick
    del pick(base, "Deployment")["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]
    assert policy.probes(base) == ["Deployment/mlflow: container mlflow has no livenessProbe"]
    del pick(base, "Deployment")["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"]
    assert policy.sidecars(base) == ["Deployment/mlflow does not refuse Istio's proxy"]
    pick(base, "StatefulSet")["spec"]["template"]["spec"]["automountServiceAccountToken"] = True
    assert policy.tokens(base) == ["StatefulSet/postgres is handed a token"]
    base.append({"kind": "Secret", "metadata": {"name": "key"}, "stringData": {"password": "1234"}})
    assert policy.secrets_in_manifests(base) == ["Secret/key has values"]
    base.append({"kind": "ClusterRole", "metadata": {"name": "all"}, "rules": []})
    assert policy.wildcards(base) == ["ClusterRole/all reaches beyond the namespace"]
