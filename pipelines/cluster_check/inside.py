"""What a pod of the pipeline's own account reaches: `marco cluster check --inside`, run by the pod of `pod_manifest`.

It has the image, account, labels, volumes and secrets of a step, so that policies, rights and identities are a step's.
"""

import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import socket
import tempfile
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
import yaml

from components import mlflow_store
from marco_model import errors, store
from pipelines.cluster_check import cluster
from pipelines.cluster_check.kubernetes_api import ACCOUNT, KUBEFLOW, Api
from pipelines.cluster_check.needs import FINE, UNSEEN, WRONG, HiddenError, Lines, Needs, Object

TIMEOUT = 10.0
RESOLV = Path("/etc/resolv.conf")
# Of Kubeflow, with the port that the driver and the launcher of every step use.
SERVICES = {"metadata-grpc-service": 8080, "ml-pipeline": 8887}
STORE_PORT = 9000
STORES = ("seaweedfs", "minio-service")
_POD, _PACKAGE = "marco-check", "/package/marco.yaml"


def _resolve(host: str) -> list[str]:
    """Returns the addresses of a name; raises `OSError` where it has none."""
    return sorted({str(item[4][0]) for item in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})


def _host(service: str) -> str:
    return f"{service}.{KUBEFLOW}"


def _store_host() -> str:
    """Returns the object store that Kubeflow brings, by the first name that is known here, "" if neither is."""
    for service in STORES:
        with contextlib.suppress(OSError):
            if _resolve(_host(service)):
                return _host(service)
    return ""


def _names(api: Api, needs: Needs) -> Lines:
    servers = [line.split()[1] for line in RESOLV.read_text().splitlines() if line.startswith("nameserver ")]
    names = [_host(service) for service in SERVICES]
    if needs.tracking.startswith("http"):
        names.append(urllib.parse.urlsplit(needs.tracking).hostname or "")
    names += ["storage.googleapis.com"] if needs.buckets else []
    for name in names:
        try:
            yield FINE, f"{name} is {_resolve(name)[0]}"
        except OSError as error:
            asked = ", ".join(servers) or "nobody"
            fix = f"let steps ask {asked} on port 53 (k8s/base/network.yaml, dns), or fix the name"
            yield WRONG, f"{name} is not resolved ({errors.one_line(error)}); {fix}"


def _kubeflow(api: Api, needs: Needs) -> Lines:
    for service, port in SERVICES.items():
        try:
            socket.create_connection((_host(service), port), TIMEOUT).close()
            yield FINE, f"{service}, port {port}"
        except OSError as error:
            fix = f"see that it runs, and the label of the namespace {api.namespace} (docs/kubeflow.md)"
            yield WRONG, f"{_host(service)}:{port} does not answer ({errors.one_line(error)}); {fix}"


def _rights(api: Api, needs: Needs) -> Lines:
    try:
        yield from cluster.rights(api, needs, account="")
    except errors.ClusterError as error:
        yield WRONG, f"{error}; let steps reach the API server, port 443 or 6443 (k8s/base/network.yaml, steps)"


def _mlflow(api: Api, needs: Needs) -> Lines:
    uri = needs.tracking.rstrip("/")
    if not uri.startswith("http"):
        yield UNSEEN, f"{uri} is a file of the steps, not a server"
        return
    mlflow_store.library()
    from mlflow import exceptions
    from mlflow.utils import credentials, rest_utils

    # With the login that steps have, by the variables that cluster.secrets gives them.
    login = credentials.get_default_host_creds(uri)
    options: dict[str, Any] = {"timeout": TIMEOUT, "max_retries": 0, "raise_on_status": False}
    try:
        version = rest_utils.http_request(login, "/version", "GET", **options)
        experiments = "/api/2.0/mlflow/experiments/search"
        answer = rest_utils.http_request(login, experiments, "POST", json={"max_results": 1}, **options)
    except exceptions.MlflowException as error:
        fix = "start it, or let steps in (network.yaml, mlflow)"
        yield WRONG, f"{uri} does not answer ({errors.one_line(error)}); {fix}"
        return
    host = urllib.parse.urlsplit(uri).netloc
    if mlflow_store.refused_host(answer.text):
        yield WRONG, f"MLflow refuses requests to {host}; add it to --allowed-hosts of the server"
    elif answer.status_code in (401, 403):
        yield WRONG, f"{uri} answers {answer.status_code}; {mlflow_store.LOGIN_FIX} (cluster.secrets)"
    elif not answer.ok:
        yield WRONG, f"{uri} answers {answer.status_code} {errors.one_line(answer.text)}; see its log"
    else:
        number = version.text.strip() if version.ok else "of an unknown version"
        old = number[:1].isdigit() and int(number.split(".")[0]) < 3
        fix = f"MLflow {number} is too old; run version 3 (k8s/base/kustomization.yaml)"
        yield (WRONG, fix) if old else (FINE, f"MLflow {number} takes requests to {host}")


def _object_store(api: Api, needs: Needs) -> Lines:
    """Writes an object below the root of the runs, reads it, and removes it."""
    name = f".check-{uuid.uuid4().hex}"
    try:
        root = needs.root or _default_root(api)
        if store.is_object(root):
            _try_bucket(f"{root}/{name}")
        elif root.startswith("minio://"):
            _try_kubeflow_store(api, f"{root.removeprefix('minio://').rstrip('/')}/{name}")
        else:
            yield UNSEEN, f"{root} is written by Kubeflow's launcher alone"
            return
    except (errors.InputError, errors.ClusterError) as error:
        yield WRONG, str(error)
    else:
        yield FINE, f"an object below {root} was written, read and removed"


def _default_root(api: Api) -> str:
    """Returns where Kubeflow puts the artifacts of a run that names no place."""
    settings: Object = {}
    with contextlib.suppress(HiddenError):
        settings = (api.own("configmaps/kfp-launcher") or {}).get("data") or {}
    return str(settings.get("defaultPipelineRoot") or "minio://mlpipeline/v2/artifacts")


def _try_bucket(uri: str) -> None:
    content = uuid.uuid4().bytes
    store.write_bytes(uri, content)
    try:
        if store.read_bytes(uri) != content:
            raise errors.ClusterError(f"{uri} has another content than was written; is it a cache?")
    finally:
        store.delete_objects([uri])


def _try_kubeflow_store(api: Api, path: str) -> None:
    """As `_try_bucket`, with S3's protocol and the keys of the namespace; `path` begins with the bucket."""
    host = _store_host()
    if not host:
        hosts = " nor ".join(map(_host, STORES))
        raise errors.ClusterError(f"there is neither {hosts}; set --root to another store, or make Kubeflow's (README)")
    secret = "mlpipeline-minio-artifact"
    try:
        data = (api.own(f"secrets/{secret}") or {}).get("data") or {}
    except HiddenError as error:
        raise errors.ClusterError(f"{ACCOUNT} may not read Secret {secret}; apply k8s/base/access.yaml") from error
    key, secret_key = (base64.b64decode(data.get(field, "")).decode() for field in ("accesskey", "secretkey"))
    keys = key, secret_key
    url, content = f"http://{host}:{STORE_PORT}/{path}", uuid.uuid4().bytes
    _send("PUT", url, keys, content)
    try:
        if _send("GET", url, keys) != content:
            raise errors.ClusterError(f"{path} has another content than was written; is it a cache?")
    finally:
        _send("DELETE", url, keys)


def _send(method: str, url: str, keys: tuple[str, str], content: bytes = b"") -> bytes:
    headers = signed(method, url, keys, content, datetime.datetime.now(datetime.timezone.utc))
    try:
        answer = requests.request(method, url, data=content, headers=headers, timeout=TIMEOUT)
    except requests.RequestException as error:
        fix = "let steps reach it (k8s/base/network.yaml, steps)"
        raise errors.ClusterError(f"{url} does not answer ({errors.one_line(error)}); {fix}") from error
    if not answer.ok:
        fix = "give --root below minio://mlpipeline/private-artifacts/NAMESPACE"
        raise errors.ClusterError(f"{method} {url} is refused ({answer.status_code}); {fix}")
    return bytes(answer.content)


def signed(method: str, url: str, keys: tuple[str, str], content: bytes, now: datetime.datetime) -> dict[str, str]:
    """Returns the headers of a request to S3: AWS Signature Version 4, of the host, the time and the content."""
    parts = urllib.parse.urlsplit(url)
    stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    headers = {"host": parts.netloc, "x-amz-content-sha256": hashlib.sha256(content).hexdigest(), "x-amz-date": stamp}
    named = ";".join(headers)
    lines = [f"{name}:{value}\n" for name, value in headers.items()]
    canonical = "\n".join([method, parts.path, parts.query, "".join(lines), named, headers["x-amz-content-sha256"]])
    scope = f"{day}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signing_key = f"AWS4{keys[1]}".encode()
    for part in scope.split("/"):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    signature = hmac.digest(signing_key, text.encode(), "sha256").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={keys[0]}/{scope}"
    return {**headers, "Authorization": f"{credential}, SignedHeaders={named}, Signature={signature}"}


def _data(api: Api, needs: Needs) -> Lines:
    for bucket in needs.buckets:
        try:
            store.list_objects(f"gs://{bucket}/.check-", TIMEOUT)
            yield FINE, f"gs://{bucket} may be listed"
        except (errors.InputError, errors.ClusterError) as error:
            yield WRONG, f"{error} (docs/cluster.md, Object storage)"
    for uri in needs.written:
        try:
            _try_bucket(f"{uri}/.check-{uuid.uuid4().hex}")
            yield FINE, f"an object below {uri} was written, read and removed"
        except (errors.InputError, errors.ClusterError) as error:
            yield WRONG, f"{error} (docs/cluster.md, Object storage)"


def _volumes(api: Api, needs: Needs) -> Lines:
    for path in sorted({entry["mountPath"] for entry in needs.all_settings("pvcMount")}):
        try:
            with tempfile.NamedTemporaryFile(dir=path, prefix=".check-") as file:
                file.write(b"marco")
            yield FINE, f"a file in {path} was written and removed"
        except OSError as error:
            fix = f"see kubectl --namespace {api.namespace} describe job marco-shared, which opens it to group 0"
            yield WRONG, f"{path} can't be written ({error.strerror}); {fix}"


CHECKS: dict[str, Callable[[Api, Needs], Lines]] = {
    "names": _names,
    "Kubeflow Pipelines": _kubeflow,
    "rights": _rights,
    "MLflow": _mlflow,
    "object store": _object_store,
    "buckets": _data,
    "volumes": _volumes,
}


def pod_manifest(needs: Needs, namespace: str) -> str:
    """Returns a ConfigMap with the package and a pod that runs `marco cluster check --inside` over it, as YAML."""
    metadata = {"name": _POD, "namespace": namespace}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"marco.yaml": needs.content}}
    volumes: list[Object] = [
        {"name": "package", "configMap": {"name": _POD}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts = [{"name": "package", "mountPath": "/package"}, {"name": "tmp", "mountPath": "/tmp"}]
    for number, (source, path) in enumerate(_mounted(needs)):
        volumes.append({"name": f"volume-{number}", **source})
        mounts.append({"name": f"volume-{number}", "mountPath": path})
    container = {
        "name": _POD,
        "image": needs.images()[0],
        "command": ["marco", "cluster", "check", _PACKAGE, "--inside", "--namespace", namespace],
        "env": list(_environment(needs)),
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": mounts,
    }
    user = {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    # Argo's label of a step's pod, by which NetworkPolicies select it.
    labels = {"workflows.argoproj.io/workflow": _POD, "sidecar.istio.io/inject": "false"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "labels": labels},
        "spec": {
            "serviceAccountName": ACCOUNT,
            "restartPolicy": "Never",
            "securityContext": user,
            "containers": [container],
            "volumes": volumes,
        },
    }
    return yaml.safe_dump_all([config_map, pod], sort_keys=False, width=120)


def _mounted(needs: Needs) -> Iterator[tuple[Object, str]]:
    for entry in needs.all_settings("pvcMount"):
        yield {"persistentVolumeClaim": {"claimName": entry["constant"]}}, entry["mountPath"]
    for entry in needs.all_settings("secretAsVolume"):
        yield {"secret": {"secretName": entry["secretName"]}}, entry["mountPath"]


def _environment(needs: Needs) -> Iterator[Object]:
    plain = (json.dumps(item) for container in needs.containers.values() for item in container.get("env", []))
    yield from map(json.loads, dict.fromkeys(plain))
    for entry in needs.all_settings("secretAsEnv"):
        for item in entry["keyToEnv"]:
            reference = {"name": entry["secretName"], "key": item["secretKey"]}
            yield {"name": item["envVar"], "valueFrom": {"secretKeyRef": reference}}
