"""Whether a cluster has what a compiled package needs, before anything is submitted: `marco cluster check`.

It reads the Kubernetes API and changes nothing; of Secrets it reads which keys they have. What the user may not read is
reported as not visible. Requests go by path, so that the versions of the API are those that the cluster serves.
"""

import json
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import urllib3
import yaml
from kubernetes import client

from components import machines
from components.trainer import jobset_api
from marco_model import errors

FINE, WRONG, UNSEEN = "fine", "wrong", "not visible"
OLDEST = (1, 32)
KUBEFLOW, ACCOUNT, REPLICAS_ACCOUNT = "kubeflow", "marco-pipeline", "marco-training"
RIGHTS = (
    ("get", "", "pods", ""),
    ("get", "", "pods/log", ""),
    ("get", "", "configmaps", "kfp-launcher"),
    ("create", "argoproj.io", "workflowtaskresults", ""),
    ("patch", "argoproj.io", "workflowtaskresults", ""),
)
REPLICAS_RIGHTS = tuple((verb, "jobset.x-k8s.io", "jobsets", "") for verb in ("create", "get", "delete"))
Object = dict[str, Any]


class Finding(NamedTuple):
    """A line of the report: `state` is `FINE`, `WRONG` or `UNSEEN`; `text` has what is there and, if wrong, the fix."""

    subject: str
    state: str
    text: str


class HiddenError(Exception):
    """The user may not read this."""


class Needs(NamedTuple):
    """What a package asks for: containers and Kubernetes' settings by step, and its training on several nodes."""

    containers: dict[str, Object]
    settings: dict[str, Object]
    training: Object

    @property
    def replicas(self) -> Object:
        """Returns `cluster.replicas` of the package, empty where the Trainer trains by itself."""
        return dict((self.training.get("placement") or {}).get("replicas") or {})

    def all_settings(self, field: str) -> list[Object]:
        """Returns the entries of a list that the settings of any step have, each once."""
        entries = (entry for settings in self.settings.values() for entry in settings.get(field, []))
        return list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())


def read_needs(package: Path) -> Needs:
    """Reads a package that `marco compile` wrote for Kubeflow; raises `InputError` for another file."""
    advice = f"{package} is not a compiled pipeline; give the .yaml file that marco compile wrote ({{}})"
    kinds = (OSError, ValueError, KeyError, TypeError, yaml.YAMLError)
    with errors.translated(errors.InputError, advice, *kinds):
        spec, platform = yaml.safe_load_all(package.read_text())
        executors = spec["deploymentSpec"]["executors"]
        settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        tasks = spec["root"]["dag"]["tasks"]
        value = tasks["Trainer"]["inputs"]["parameters"]["training"]["runtimeValue"]["constant"]
        return Needs(
            {step: executors[f"{step}_executor"]["container"] for step in tasks},
            {step: settings[f"{step}_executor"] for step in tasks},
            json.loads(value),
        )


class Api:
    """The Kubernetes API, of the pod or of kubectl's configuration."""

    def __init__(self, namespace: str) -> None:
        """Connects as `components.trainer.jobset_api.connect` does."""
        self.namespace, self._client = namespace, jobset_api.connect(retries=2)

    def get(self, path: str) -> Object | None:
        """Returns what is at `path`, None if nothing is there; raises `HiddenError` where that may not be read."""
        return self._request("GET", path)

    def own(self, path: str) -> Object | None:
        """As `get`, of the namespace: `path` such as `secrets/NAME` is of the API's core."""
        return self.get(f"/api/v1/namespaces/{self.namespace}/{path}")

    def may(self, account: str, verb: str, group: str, resource: str, name: str) -> bool:
        """Returns whether a service account of the namespace has a right; asking leaves no object behind."""
        resource, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{self.namespace}:{account}",
                "groups": [
                    "system:serviceaccounts",
                    f"system:serviceaccounts:{self.namespace}",
                    "system:authenticated",
                ],
                "resourceAttributes": {"namespace": self.namespace, **attributes},
            },
        }
        answer = self._request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer and answer["status"].get("allowed"))

    def _request(self, method: str, path: str, body: Object | None = None) -> Object | None:
        try:
            answer = self._client.call_api(
                path,
                method,
                header_params={"Accept": "application/json"},
                body=body,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=jobset_api.TIMEOUT,
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            if error.status in (401, 403):
                raise HiddenError(errors.one_line(error.reason or "")) from error
            raise errors.ClusterError(f"the Kubernetes API answers {error.status} to {method} {path}") from error
        except urllib3.exceptions.HTTPError as error:
            raise errors.ClusterError(f"the Kubernetes API cannot be reached ({errors.one_line(error)})") from error
        return dict(answer)


def check(api: Api, needs: Needs) -> list[Finding]:
    """Returns the findings of all checks, in order; raises `ClusterError` if the API fails."""
    findings = []
    for subject, work in CHECKS.items():
        try:
            findings += [Finding(subject, state, text) for state, text in work(api, needs)]
        except HiddenError:
            findings.append(Finding(subject, UNSEEN, "you may not read this; ask who runs the cluster"))
    return findings


Findings = Iterator[tuple[str, str]]


def _versions(api: Api, needs: Needs) -> Findings:
    version = api.get("/version") or {}
    number = tuple(int("".join(filter(str.isdigit, version.get(field, "0"))) or 0) for field in ("major", "minor"))
    text = f"Kubernetes {number[0]}.{number[1]}"
    old = f"{text}; 1.{OLDEST[1]} or later is needed, upgrade the cluster"
    yield (FINE, text) if number >= OLDEST else (WRONG, old)


def _apis(api: Api, needs: Needs) -> Findings:
    expected = {
        "argoproj.io/v1alpha1": "Kubeflow Pipelines",
        "serving.kserve.io/v1beta1": "KServe, for the model server",
    }
    if needs.replicas:
        expected[jobset_api.API_VERSION] = "JobSet, for training on several nodes"
    for name, what in expected.items():
        missing = f"{name} is not served; install {what} (k8s/README.md)"
        yield (FINE, f"{name} is served") if api.get(f"/apis/{name}") is not None else (WRONG, missing)


def _namespace(api: Api, needs: Needs) -> Findings:
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
    yield (FINE, "Pod Security level restricted") if level == "restricted" else (WRONG, loose)


def _accounts(api: Api, needs: Needs) -> Findings:
    for name in (ACCOUNT, *([needs.replicas.get("service_account", REPLICAS_ACCOUNT)] if needs.replicas else [])):
        missing = f"there is no service account {name}; kubectl apply -k k8s/overlays/…"
        yield (FINE, name) if api.own(f"serviceaccounts/{name}") is not None else (WRONG, missing)


def _rights(api: Api, needs: Needs) -> Findings:
    rights = RIGHTS + (REPLICAS_RIGHTS if needs.replicas else ())
    denied = [f"{right[0]} {right[2]}" for right in rights if not api.may(ACCOUNT, *right)]
    refused = f"{ACCOUNT} may not {', '.join(denied)}; apply k8s/base/access.yaml"
    yield (WRONG, refused) if denied else (FINE, f"{ACCOUNT} has its {len(rights)} rights")


def _secrets(api: Api, needs: Needs) -> Findings:
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


def _volumes(api: Api, needs: Needs) -> Findings:
    for entry in needs.all_settings("pvcMount"):
        name = entry["constant"]
        claim = api.own(f"persistentvolumeclaims/{name}")
        if claim is None:
            yield WRONG, f"there is no claim {name}; kubectl apply -k k8s/overlays/…, or fix cluster.volumes"
        elif needs.replicas and not {"ReadWriteMany", "ReadOnlyMany"} & set(claim["spec"]["accessModes"]):
            yield WRONG, f"claim {name} is for one node, and training is on several; give it ReadWriteMany"
        elif (phase := claim["status"].get("phase")) == "Lost":
            yield WRONG, f"claim {name} has lost its volume; make it again"
        else:
            waiting = "" if phase == "Bound" else ", which waits for its first pod or for a storage class"
            yield FINE, f"claim {name} is {phase}{waiting}"


def _requests(needs: Needs) -> dict[str, dict[str, float]]:
    """Returns what each step, and each worker of a training on several nodes, asks for, by Kubernetes' names."""
    requests = {}
    for step, container in needs.containers.items():
        resources = container["resources"]
        requests[step] = {"cpu": resources["cpuRequest"], "memory": resources["memoryRequest"] * 1e9}
        if accelerator := resources.get("accelerator"):
            requests[step][accelerator["type"]] = float(accelerator["count"])
    return requests


def amount(quantity: str) -> float:
    """Returns a quantity of Kubernetes, such as `500m` or `8Gi`, as a number."""
    if quantity.endswith("m"):
        return float(quantity[:-1]) / 1000
    return float(machines.quantity_bytes(quantity))


def _quota(api: Api, needs: Needs) -> Findings:
    quotas = (api.own("resourcequotas") or {}).get("items", [])
    refused = []
    for quota in quotas:
        hard = quota["spec"].get("hard", {})
        for step, request in _requests(needs).items():
            for resource, size in request.items():
                limits = {name: hard[name] for name in (resource, f"requests.{resource}") if name in hard}
                for name, limit in limits.items():
                    if size > amount(limit):
                        refused.append(f"{step} asks for {size:g} of {resource}, quota {name} is {limit}")
    yield (
        (WRONG, f"{'; '.join(refused)}: no pod would start; raise the quota")
        if refused
        else (FINE, "it holds each step")
    )


def _nodes(api: Api, needs: Needs) -> Findings:
    nodes = (api.get("/api/v1/nodes") or {}).get("items", [])
    unplaced = []
    for step, request in _requests(needs).items():
        reasons = {_refusal(node, request, needs.settings[step]) for node in nodes}
        if "" not in reasons:
            unplaced.append(f"{step}: {', '.join(sorted(reasons)) or 'there are no nodes'}")
    text = f"no node takes {'; '.join(unplaced)}; fix cluster.steps or add nodes (unless the cluster makes them itself)"
    yield (WRONG, text) if unplaced else (FINE, f"each step fits one of {len(nodes)} nodes")


def _refusal(node: Object, request: dict[str, float], settings: Object) -> str:
    """Returns why an empty node would not take a step, "" if it would."""
    labels = node["metadata"].get("labels") or {}
    for key, value in settings.get("nodeSelector", {}).get("labels", {}).items():
        if labels.get(key) != value:
            return f"no label {key}={value}"
    for resource, size in request.items():
        if amount(node["status"]["allocatable"].get(resource, "0")) < size:
            return f"less than {size:g} of {resource}"
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] != "PreferNoSchedule" and not any(
            _tolerates(t, taint) for t in settings.get("tolerations", [])
        ):
            # The device plugin's own taint is tolerated by pods that ask for GPUs, where the admission plugin is on.
            return f"taint {taint['key']}, not tolerated"
    return ""


def _tolerates(toleration: Object, taint: Object) -> bool:
    same_value = toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
    same_key = toleration.get("key", "") in ("", taint["key"])
    return same_key and same_value and toleration.get("effect", "") in ("", taint["effect"])


def _kubeflow(api: Api, needs: Needs) -> Findings:
    place = f"/apis/apps/v1/namespaces/{KUBEFLOW}/deployments/ml-pipeline"
    deployment = api.get(place)
    if deployment is None:
        yield WRONG, f"there is no ml-pipeline in {KUBEFLOW}; install Kubeflow Pipelines 2.17 (k8s/README.md)"
    else:
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        ready = deployment["status"].get("readyReplicas", 0)
        down = "ml-pipeline has no ready pod; see kubectl --namespace kubeflow describe deployment ml-pipeline"
        yield (FINE, f"ml-pipeline {image.rpartition(':')[2]}") if ready else (WRONG, down)
    installed = api.get(f"/api/v1/namespaces/{KUBEFLOW}/configmaps/pipeline-install-config") or {}
    user = (installed.get("data") or {}).get("defaultSecurityContextRunAsUser", "")
    root = (
        "steps do not run as uid 1000, as a restricted namespace needs; patch pipeline-install-config (k8s/README.md)"
    )
    yield (FINE, "steps run as uid 1000") if user == "1000" else (WRONG, root)
    settings = api.get(f"/api/v1/namespaces/{KUBEFLOW}/configmaps/workflow-controller-configmap") or {}
    defaults = yaml.safe_load(str((settings.get("data") or {}).get("workflowDefaults", ""))) or {}
    retry = defaults.get("spec", {}).get("templateDefaults", {}).get("retryStrategy", {})
    policy = retry.get("retryPolicy", "")
    always = f"Argo's templateDefaults repeat {policy}, so that a failing step starts up to 27 pods; set OnError"
    once = f"a failed pod is {'not ' if policy == 'OnError' else ''}started again by Argo (docs/kubeflow.md)"
    yield (WRONG, always) if policy in ("Always", "OnFailure") else (FINE, once)


def _image(api: Api, needs: Needs) -> Findings:
    for image in sorted({container["image"] for container in needs.containers.values()}):
        tagged = (
            f"{image} has no digest: behind a tag it can change, and finished steps would be reused; compile with it"
        )
        local = f"{image} is of this machine alone; push it, and compile with --image REGISTRY/…@sha256:…"
        wrong = local if image.startswith("localhost/") else "" if "@sha256:" in image else tagged
        yield (WRONG, wrong) if wrong else (FINE, image)


def _mlflow(api: Api, needs: Needs) -> Findings:
    uri = needs.training["tracking"]["uri"]
    host = urllib.parse.urlsplit(uri).hostname or ""
    name, _, rest = host.partition(".")
    if not uri.startswith("http") or (rest and rest.split(".")[0] != api.namespace):
        yield UNSEEN, f"{uri} is not a Service of {api.namespace}"
        return
    endpoints = api.own(f"endpoints/{name}")
    ready = any(subset.get("addresses") for subset in (endpoints or {}).get("subsets") or [])
    if endpoints is None:
        yield WRONG, f"there is no Service {name}; kubectl apply -k k8s/overlays/…, or fix tracking.uri"
    else:
        down = f"Service {name} has no ready pod; see kubectl --namespace {api.namespace} describe deployment {name}"
        yield (FINE, f"Service {name}") if ready else (WRONG, down)


CHECKS: dict[str, Callable[[Api, Needs], Findings]] = {
    "Kubernetes": _versions,
    "APIs": _apis,
    "namespace": _namespace,
    "accounts": _accounts,
    "rights": _rights,
    "secrets": _secrets,
    "volumes": _volumes,
    "quota": _quota,
    "nodes": _nodes,
    "Kubeflow Pipelines": _kubeflow,
    "image": _image,
    "MLflow": _mlflow,
}
