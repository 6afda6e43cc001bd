"""What the Kubernetes API shows of a cluster, against what a package needs.

It is read and nothing is changed. Of Secrets it reads which keys they have, and of logins for which registries. What
the user may not read is reported as not visible.
"""

import base64
import fnmatch
import itertools
import json
import urllib.parse
from typing import NamedTuple

import yaml
from kubernetes import utils

from components.trainer import jobset_api
from pipelines.cluster_check import needs as package_needs, network
from pipelines.cluster_check.kubernetes_api import ACCOUNT, KUBEFLOW, Api
from pipelines.cluster_check.needs import FINE, UNSEEN, WRONG, Lines, Needs, Object

OLDEST = (1, 32)
RIGHTS = (
    ("get", "", "pods", ""),
    ("get", "", "pods/log", ""),
    ("get", "", "configmaps", "kfp-launcher"),
    ("get", "", "secrets", "mlpipeline-minio-artifact"),
    ("create", "argoproj.io", "workflowtaskresults", ""),
    ("patch", "argoproj.io", "workflowtaskresults", ""),
)
REPLICAS_RIGHTS = (
    ("list", "", "pods", ""),
    *((verb, "jobset.x-k8s.io", "jobsets", "") for verb in ("create", "get", "delete")),
)
# Of disks that one node mounts at a time: kubernetes.io/docs/concepts/storage/persistent-volumes, access modes.
ONE_NODE = {"pd.csi.storage.gke.io", "ebs.csi.aws.com", "disk.csi.azure.com", "rancher.io/local-path"}


def _versions(api: Api, needs: Needs) -> Lines:
    version = api.get("/version") or {}
    number = tuple(int("".join(filter(str.isdigit, version.get(field, "0"))) or 0) for field in ("major", "minor"))
    text = f"Kubernetes {number[0]}.{number[1]}"
    old = f"{text}; 1.{OLDEST[1]} or later is needed, upgrade the cluster"
    yield (FINE, text) if number >= OLDEST else (WRONG, old)


def _apis(api: Api, needs: Needs) -> Lines:
    expected = {"argoproj.io/v1alpha1": "Kubeflow Pipelines"}
    if needs.replicas:
        expected[jobset_api.API_VERSION] = "JobSet, for training on several nodes"
    for name, what in expected.items():
        missing = f"{name} is not served; install {what} (k8s/README.md)"
        yield (FINE, f"{name} is served") if api.get(f"/apis/{name}") is not None else (WRONG, missing)
    served = api.get("/apis/serving.kserve.io/v1beta1") is not None
    yield FINE, "KServe is served" if served else "KServe is not served; only a model server needs it"


def _namespace(api: Api, needs: Needs) -> Lines:
    namespace = api.get(f"/api/v1/namespaces/{api.namespace}")
    if namespace is None:
        yield WRONG, f"there is no namespace {api.namespace}; make the profile of that name (k8s/README.md)"
        return
    labels = namespace["metadata"].get("labels") or {}
    part = labels.get("app.kubernetes.io/part-of", "")
    fix = f"kubectl label --overwrite namespace {api.namespace} app.kubernetes.io/part-of=kubeflow-profile"
    closed = f"app.kubernetes.io/part-of is {part!r}, so that Kubeflow's NetworkPolicies let no step in; {fix}"
    yield (FINE, "it is a profile's") if part == "kubeflow-profile" else (WRONG, closed)
    level = labels.get("pod-security.kubernetes.io/enforce", "")
    loose = f"Pod Security level is {level or 'not set'}; kubectl apply -k k8s/overlays/… sets restricted"
    # For Kubeflow's previews k8s/README.md has one set baseline.
    yield (FINE, f"Pod Security level {level}") if level in ("restricted", "baseline") else (WRONG, loose)


def _account_names(needs: Needs) -> list[str]:
    return [ACCOUNT, *([needs.replicas.service_account] if needs.replicas else [])]


def _accounts(api: Api, needs: Needs) -> Lines:
    for name in _account_names(needs):
        missing = f"there is no service account {name}; kubectl apply -k k8s/overlays/…"
        yield (FINE, name) if api.own(f"serviceaccounts/{name}") is not None else (WRONG, missing)


def rights(api: Api, needs: Needs, account: str = ACCOUNT) -> Lines:
    """Says whether the pipeline's account has its rights; with `account` "", those of the user who asks."""
    expected = RIGHTS + (REPLICAS_RIGHTS if needs.replicas else ())
    denied = [f"{right[0]} {right[2]}" for right in expected if not api.may(*right, account=account)]
    refused = f"{ACCOUNT} may not {', '.join(denied)}; apply k8s/base/access.yaml"
    yield (WRONG, refused) if denied else (FINE, f"{ACCOUNT} has its {len(expected)} rights")


def _secrets(api: Api, needs: Needs) -> Lines:
    keys: dict[str, set[str]] = {"mlpipeline-minio-artifact": {"accesskey", "secretkey"}}
    for entry in needs.all_settings("secretAsVolume"):
        keys.setdefault(entry["secretName"], set())
    for entry in needs.all_settings("secretAsEnv"):
        keys.setdefault(entry["secretName"], set()).update(item["secretKey"] for item in entry["keyToEnv"])
    for name, expected in keys.items():
        secret = api.own(f"secrets/{name}")
        missing = sorted(expected - set((secret or {}).get("data") or {}))
        if secret is None:
            yield WRONG, f"there is no Secret {name}; make it in the namespace {api.namespace} (k8s/README.md)"
        else:
            lacking = f"Secret {name} has no key {', '.join(missing)}; add it"
            yield (WRONG, lacking) if missing else (FINE, f"Secret {name}")


def _volumes(api: Api, needs: Needs) -> Lines:
    shared = (needs.training.get("placement") or {}).get("shared", "")
    for entry in needs.all_settings("pvcMount"):
        name = entry["constant"]
        claim = api.own(f"persistentvolumeclaims/{name}")
        if claim is None:
            yield WRONG, f"there is no claim {name}; kubectl apply -k k8s/overlays/…, or fix cluster.volumes"
            continue
        modes, phase = set(claim["spec"]["accessModes"]), claim["status"].get("phase")
        written = f"{shared}/".startswith(f"{entry['mountPath'].rstrip('/')}/")
        if needs.replicas and not modes & {"ReadWriteMany", *([] if written else ["ReadOnlyMany"])}:
            yield WRONG, f"claim {name} is for one node, and training is on several; give it ReadWriteMany"
        elif phase == "Lost":
            yield WRONG, f"claim {name} has lost its volume; make it again"
        elif phase == "Bound":
            yield FINE, f"claim {name} is Bound"
        else:
            yield _unbound(api, name, claim["spec"])


def _unbound(api: Api, name: str, spec: Object) -> tuple[str, str]:
    """Says whether a storage class will make the volume of a claim that has none yet."""
    classes = {item["metadata"]["name"]: item for item in api.items("/apis/storage.k8s.io/v1/storageclasses")}
    notes = {title: item["metadata"].get("annotations") or {} for title, item in classes.items()}
    defaults = [title for title in notes if notes[title].get("storageclass.kubernetes.io/is-default-class") == "true"]
    chosen = spec.get("storageClassName") or next(iter(defaults), "")
    if chosen not in classes:
        what = f"storage class {chosen}" if chosen else "default storage class"
        fix = f"name one of {', '.join(classes) or 'none'} in an overlay"
        return WRONG, f"claim {name} waits, there is no {what}; {fix}"
    provisioner = classes[chosen]["provisioner"]
    if "ReadWriteMany" in spec["accessModes"] and provisioner in ONE_NODE:
        several = "name a class that several nodes mount, such as NFS, Filestore or CephFS"
        found = f"claim {name} wants ReadWriteMany, and {chosen} ({provisioner}) makes disks for one node"
        return WRONG, f"{found}; {several}"
    return FINE, f"claim {name} waits for its first pod; {chosen} makes the volume"


class _Pods(NamedTuple):
    """`number` pods that run at once; what each asks for, by Kubernetes' names; and a step's settings of Kubernetes."""

    number: int
    request: dict[str, float]
    settings: Object


def _pods(needs: Needs) -> dict[str, _Pods]:
    """Returns the pod of each step, and those of a training on several nodes."""
    pods = {}
    for step, container in needs.containers.items():
        resources = container["resources"]
        request = {"cpu": resources["cpuRequest"], "memory": resources["memoryRequest"] * 1e9}
        if accelerator := resources.get("accelerator"):
            request[accelerator["type"]] = float(accelerator["count"])
        pods[step] = _Pods(1, request, needs.settings[step])
    if not (replicas := needs.replicas):
        return pods
    kinds = (
        ("worker", replicas.workers, replicas.worker),
        ("parameter_server", replicas.parameter_servers, replicas.parameter_server),
    )
    for name, count, asked in kinds:
        request = {"cpu": asked.cpu, "memory": amount(asked.memory)}
        if asked.accelerators:
            request[asked.accelerator] = float(asked.accelerators)
        tolerations = [toleration.model_dump() for toleration in asked.tolerations]
        settings = {"nodeSelector": {"labels": asked.node_selector}, "tolerations": tolerations}
        if count:
            pods[f"cluster.replicas.{name} ({count})"] = _Pods(count, request, settings)
    return pods


def amount(quantity: str) -> float:
    """Returns a quantity of Kubernetes, such as `500m` or `8Gi`, as a number."""
    return float(utils.parse_quantity(quantity))


def _written(number: float, resource: str) -> str:
    """Returns an amount of a resource as people write it."""
    return f"{number / 1e9:.3g} GB of memory" if resource == "memory" else f"{number:g} of {resource}"


def _quota(api: Api, needs: Needs) -> Lines:
    limit_ranges = (api.own("limitranges") or {}).get("items", [])
    ranges = [item for each in limit_ranges for item in each["spec"]["limits"] if item["type"] == "Container"]
    quotas = (api.own("resourcequotas") or {}).get("items", [])
    hard = [(quota["spec"].get("hard") or {}, quota.get("status", {}).get("used") or {}) for quota in quotas]
    refused, waiting = [], []
    for step, pods in _pods(needs).items():
        for resource, size in pods.request.items():
            # A step's limits are its requests.
            names = (resource, f"requests.{resource}", f"limits.{resource}")
            total = pods.number * size
            asks = f"{step} asks for {_written(total, resource)}"
            for name, (limits, used) in itertools.product(names, hard):
                if name not in limits:
                    continue
                limit, taken = limits[name], used.get(name, "0")
                if total > amount(limit):
                    refused.append(f"{asks}, quota {name} is {limit}")
                elif total > amount(limit) - amount(taken):
                    waiting.append(f"{asks} and waits while {taken} of quota {name}, {limit}, are in use")
            largest = [item["max"][resource] for item in ranges if resource in item.get("max", {})]
            refused += [f"{asks}, the LimitRange's max is {limit}" for limit in largest if size > amount(limit)]
    refused += [
        f"quota {name} refuses containers that name none, as Argo's do, and no LimitRange gives them a default"
        for name in sorted({name for limit, _ in hard for name in limit})
        if not _has_default(name, ranges)
    ]
    text = f"{'; '.join(refused)}: no pod would start; raise it, or apply the LimitRange (k8s/base/quota.yaml)"
    yield (WRONG, text) if refused else (FINE, "; ".join(["it holds each step", *waiting]))


def _has_default(name: str, ranges: list[Object]) -> bool:
    """Returns whether a container that names no resources meets a quota such as `limits.cpu`."""
    kind, _, resource = name.rpartition(".")
    fields = ("default",) if kind == "limits" else ("default", "defaultRequest")
    counted = resource in ("cpu", "memory") and kind in ("", "requests", "limits")
    return not counted or any(resource in item.get(field, {}) for item in ranges for field in fields)


def _nodes(api: Api, needs: Needs) -> Lines:
    nodes = (api.get("/api/v1/nodes") or {}).get("items", [])
    unplaced = []
    for step, pods in _pods(needs).items():
        reasons = {_refusal(node, pods.request, pods.settings) for node in nodes}
        if "" not in reasons:
            unplaced.append(f"{step}: {', '.join(sorted(reasons)) or 'there are no nodes'}")
    fix = "lower it in cluster.steps or cluster.replicas, or add nodes (unless the cluster makes them itself)"
    text = f"no node takes {'; '.join(unplaced)}; {fix}"
    yield (WRONG, text) if unplaced else (FINE, f"each step fits one of {len(nodes)} nodes")


def _refusal(node: Object, request: dict[str, float], settings: Object) -> str:
    """Returns why an empty node would not take a step, "" if it would."""
    labels = node["metadata"].get("labels") or {}
    for key, value in settings.get("nodeSelector", {}).get("labels", {}).items():
        if labels.get(key) != value:
            return f"no label {key}={value}"
    for resource, size in request.items():
        if amount(node["status"]["allocatable"].get(resource, "0")) < size:
            return f"less than {_written(size, resource)}"
    tolerations = list(settings.get("tolerations", []))
    if network.is_of_google(node):
        # Its API server adds these, by Kubernetes' admission plugin ExtendedResourceToleration.
        tolerations += [{"key": resource, "operator": "Exists"} for resource, size in request.items() if size]
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(each, taint) for each in tolerations):
            return f"taint {taint['key']}, not tolerated"
    return ""


def _tolerates(toleration: Object, taint: Object) -> bool:
    same_value = toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
    same_key = toleration.get("key", "") in ("", taint["key"])
    return same_key and same_value and toleration.get("effect", "") in ("", taint["effect"])


def _kubeflow(api: Api, needs: Needs) -> Lines:
    place = f"/apis/apps/v1/namespaces/{KUBEFLOW}/deployments/ml-pipeline"
    deployment = api.get(place)
    if deployment is None:
        yield WRONG, f"there is no ml-pipeline in {KUBEFLOW}; install Kubeflow Pipelines 2.16 or later (k8s/README.md)"
    else:
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        image, variables = container["image"], {item["name"] for item in container.get("env") or []}
        ready = deployment["status"].get("readyReplicas", 0)
        down = "ml-pipeline has no ready pod; see kubectl --namespace kubeflow describe deployment ml-pipeline"
        yield (FINE, f"ml-pipeline {image.rpartition(':')[2]}") if ready else (WRONG, down)
        if "DEFAULT_SECURITY_CONTEXT_RUN_AS_USER" not in variables:
            old = f"ml-pipeline {image.rpartition(':')[2]} cannot choose the user of steps"
            yield WRONG, f"{old}, as a restricted namespace needs; upgrade it (2.16 or later)"
    installed = api.get(f"/api/v1/namespaces/{KUBEFLOW}/configmaps/pipeline-install-config") or {}
    data = installed.get("data") or {}
    needed = {"defaultSecurityContextRunAsUser": "1000", "defaultSecurityContextRunAsNonRoot": "true"}
    other = ", ".join(f"{key} {data.get(key, 'not set')}" for key, value in needed.items() if data.get(key) != value)
    root = f"{other} in pipeline-install-config: a restricted namespace needs {' and '.join(needed.values())}"
    yield (WRONG, f"{root}; patch it (k8s/README.md)") if other else (FINE, "steps run as uid 1000")
    settings = api.get(f"/api/v1/namespaces/{KUBEFLOW}/configmaps/workflow-controller-configmap") or {}
    defaults = yaml.safe_load(str((settings.get("data") or {}).get("workflowDefaults", ""))) or {}
    retry = defaults.get("spec", {}).get("templateDefaults", {}).get("retryStrategy", {})
    policy = retry.get("retryPolicy", "")
    always = f"Argo's templateDefaults repeat {policy}, so that a failing step starts up to 27 pods; set OnError"
    once = f"a failed pod is {'not ' if policy == 'OnError' else ''}started again by Argo (docs/kubeflow.md)"
    yield (WRONG, always) if policy in ("Always", "OnFailure") else (FINE, once)


def _image(api: Api, needs: Needs) -> Lines:
    yield from package_needs.image_digests(needs)
    for image in needs.images():
        yield from _pull_rights(api, needs, image)


def _pull_rights(api: Api, needs: Needs, image: str) -> Lines:
    """Says by which login each account pulls an image; whether a registry wants one cannot be seen from here."""
    first, slash, _ = image.partition("/")
    registry = first if slash and (set(".:") & set(first)) else "docker.io"
    nodes = api.items("/api/v1/nodes", hidden_as_empty=True)
    if any(image in (cached.get("names") or []) for node in nodes for cached in node["status"].get("images") or []):
        yield FINE, f"a node has pulled {image.rpartition('/')[2][:40]}"
        return
    for account in _account_names(needs):
        named = [item["name"] for item in (api.own(f"serviceaccounts/{account}") or {}).get("imagePullSecrets") or []]
        logins = {name: _registries(api, name) for name in named}
        known = sorted({host for hosts in logins.values() for host in hosts or ()})
        if any(fnmatch.fnmatchcase(registry, host) for host in known):
            yield FINE, f"{account} has a login for {registry}"
        elif known:
            fix = f"make {' or '.join(name for name in named if logins[name])} with --docker-server={registry}"
            yield WRONG, f"the logins of {account} are for {', '.join(known)}, and the image is at {registry}; {fix}"
        elif broken := [name for name, hosts in logins.items() if hosts is not None]:
            yield WRONG, f"Secret {broken[0]} holds no login; make it with kubectl create secret docker-registry"
        else:
            absent = f"Secret {', '.join(named)} is missing" if named else f"{account} names no imagePullSecrets"
            yield UNSEEN, f"{absent}: {registry} must give the image without a login or to the nodes (k8s/README.md)"


def _registries(api: Api, secret: str) -> list[str] | None:
    """Returns the registries that a Secret has logins for, None if it does not exist."""
    content = api.own(f"secrets/{secret}")
    if content is None:
        return None
    data = (content.get("data") or {}).get(".dockerconfigjson", "")
    try:
        hosts = json.loads(base64.b64decode(data) or "{}").get("auths", {})
    except ValueError:
        return []
    names = (urllib.parse.urlsplit(host if "//" in host else f"//{host}").netloc for host in hosts)
    # kubectl and the kubelet (pkg/credentialprovider/keyring.go) call Docker Hub by another name than images do.
    return ["docker.io" if name == "index.docker.io" else name for name in names]


def _mlflow(api: Api, needs: Needs) -> Lines:
    uri = needs.tracking
    name = network.own_service(uri, api.namespace)
    if not name:
        yield UNSEEN, f"{uri} is not a Service of {api.namespace}"
        return
    endpoints = api.own(f"endpoints/{name}")
    ready = any(subset.get("addresses") for subset in (endpoints or {}).get("subsets") or [])
    if endpoints is None:
        yield WRONG, f"there is no Service {name}; kubectl apply -k k8s/overlays/…, or fix tracking.uri"
        return
    down = f"Service {name} has no ready pod; see kubectl --namespace {api.namespace} describe deployment {name}"
    yield (FINE, f"Service {name}") if ready else (WRONG, down)
    deployment = api.get(f"/apis/apps/v1/namespaces/{api.namespace}/deployments/{name}") or {}
    containers = deployment.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
    option = "--allowed-hosts="
    lists = [text.removeprefix(option) for item in containers for text in item.get("args", []) if option in text]
    host = urllib.parse.urlsplit(uri).netloc
    if lists:
        refused = f"MLflow refuses requests to {host}; add it to --allowed-hosts of Deployment {name}"
        allowed = any(fnmatch.fnmatchcase(host, pattern) for pattern in lists[0].split(","))
        yield (FINE, f"MLflow takes requests to {host}") if allowed else (WRONG, refused)


CHECKS = {
    "Kubernetes": _versions,
    "APIs": _apis,
    "namespace": _namespace,
    "accounts": _accounts,
    "rights": rights,
    "secrets": _secrets,
    "volumes": _volumes,
    "quota": _quota,
    "nodes": _nodes,
    "Kubeflow Pipelines": _kubeflow,
    "image": _image,
    "MLflow": _mlflow,
    "DNS": network.dns,
    "network policies": network.policies,
}
