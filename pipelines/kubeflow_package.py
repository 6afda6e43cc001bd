"""What a package needs on a cluster beside what TFX compiles: plain functions over the package as a mapping.

The messages are those of KFP's `pipeline_spec.proto` and of kfp-kubernetes' `kubernetes_executor_config.proto`; fields
that later versions of KFP call deprecated are written where the earlier ones know no other, and all still read them.
"""

from __future__ import annotations

import json
from typing import Any

from components.cluster.data import OUTPUTS
from components.cluster.options import Resources, quantity_bytes
from pipelines.cluster import DATA_STEP, Cluster

ENTRYPOINT = ("python", "-m", "components.cluster.entrypoint")
DATA_COMMAND = ("python", "-m", "components.cluster.data")
# What a schedule changes; all are strings. Empty: as the preset has it.
PARAMETERS = {
    "data": "Shards of scored images: a folder or glob, local to the steps or gs://. Empty: the preset's.",
    "steps": "Steps of training. Empty: the preset's.",
    "run_label": "A label of the run, kept as the tag run_label in MLflow.",
}
_RETRY = {"backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "600s"}
# Names of the pod that a step finds in its environment, by the path at which Kubernetes keeps them.
_POD = {
    "MARCO_POD_NAME": "metadata.name",
    "MARCO_POD_UID": "metadata.uid",
    "MARCO_NAMESPACE": "metadata.namespace",
    "MARCO_RUN": "metadata.labels['pipeline/runid']",
}


def add_data_step(
    package: dict[str, Any],
    image: str,
    *,
    source: str,
    place: str,
    synthetic: dict | None,
    initial: str,
    lookup: str,
    overlay: str = "",
) -> None:
    """Puts the step `Data` in front (`components.cluster.data`) and the package's parameters where steps take them.

    TFX compiled what is in `OUTPUTS` as parameters of the package; they become outputs of the step. `source`: the data
    where the parameter `data` is left empty. `lookup`: `components.gate.lookup.Lookup`, as JSON.
    """
    tasks = package["root"]["dag"]["tasks"]
    for task in tasks.values():
        if _of_data(task.get("inputs", {}).get("parameters", {})):
            task["dependentTasks"] = sorted({*task.get("dependentTasks", []), DATA_STEP})
    tasks[DATA_STEP] = {
        "taskInfo": {"name": DATA_STEP},
        "componentRef": {"name": DATA_STEP},
        "cachingOptions": {"enableCache": False},
        "inputs": {"parameters": {name: {"componentInputParameter": name} for name in ("data", "steps")}},
    }
    package["components"][DATA_STEP] = {
        "executorLabel": f"{DATA_STEP}_executor",
        "inputDefinitions": {"parameters": {name: {"parameterType": "STRING"} for name in ("data", "steps")}},
        "outputDefinitions": {"parameters": {name: {"parameterType": "STRING"} for name in OUTPUTS}},
    }
    arguments = {
        "source": "{{$.inputs.parameters['data']}}",
        "steps": "{{$.inputs.parameters['steps']}}",
        "place": place,
        "synthetic": json.dumps(synthetic),
        "initial": initial,
        "lookup": lookup,
        **({"overlay": overlay} if overlay else {}),
        **{f"{name}-file": f"{{{{$.outputs.parameters['{name}'].output_file}}}}" for name in OUTPUTS},
    }
    package["deploymentSpec"]["executors"][f"{DATA_STEP}_executor"] = {
        "container": {
            "image": image,
            "command": list(DATA_COMMAND),
            "args": [part for name, value in arguments.items() for part in (f"--{name}", value)],
        }
    }
    defaults = {"data": source, "steps": "", "run_label": ""}
    package["root"]["inputDefinitions"] = {
        "parameters": {
            name: {
                "parameterType": "STRING",
                "defaultValue": defaults[name],
                "isOptional": True,
                "description": description,
            }
            for name, description in PARAMETERS.items()
        }
    }


def _of_data(parameters: dict[str, Any]) -> bool:
    """Takes what the step `Data` gives from it, in place; returns whether there was any."""
    taken = [one for one in parameters.values() if one.get("componentInputParameter") in OUTPUTS]
    for parameter in taken:
        output = parameter.pop("componentInputParameter")
        parameter["taskOutputParameter"] = {"producerTask": DATA_STEP, "outputParameterKey": output}
    return bool(taken)


def add_resources(package: dict[str, Any], cluster: Cluster) -> None:
    """Gives every container its resources and environment, and every task its retries."""
    executors = package["deploymentSpec"]["executors"]
    for step, task in package["root"]["dag"]["tasks"].items():
        container = executors[f"{step}_executor"]["container"]
        container["resources"] = _resources(cluster.resources(step))
        if cluster.environment:
            container["env"] = [{"name": name, "value": value} for name, value in cluster.environment.items()]
        if cluster.retries:
            task["retryPolicy"] = {"maxRetryCount": cluster.retries, **_RETRY}


def _resources(wanted: Resources) -> dict[str, Any]:
    gigabytes = quantity_bytes(wanted.memory) / 1e9
    told: dict[str, Any] = {
        "cpuLimit": float(wanted.cpu),
        "cpuRequest": float(wanted.cpu),
        "memoryLimit": gigabytes,
        "memoryRequest": gigabytes,
    }
    if wanted.accelerators:
        told["accelerator"] = {"type": wanted.accelerator, "count": str(wanted.accelerators)}
    return told


def platform_document(package: dict[str, Any], cluster: Cluster) -> dict[str, Any]:
    """Returns the package's second document: what only Kubernetes knows, of every executor."""
    executors = {
        f"{step}_executor": _executor_config(cluster, cluster.resources(step))
        for step in package["root"]["dag"]["tasks"]
    }
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def _executor_config(cluster: Cluster, resources: Resources) -> dict[str, Any]:
    config: dict[str, Any] = {
        "fieldPathAsEnv": [{"name": name, "fieldPath": path} for name, path in _POD.items()],
        "podMetadata": {"labels": {"app.kubernetes.io/part-of": "marco"}},
    }
    if resources.node_selector:
        config["nodeSelector"] = {"labels": dict(resources.node_selector)}
    if resources.tolerations:
        config["tolerations"] = [
            {field: value for field in ("key", "operator", "value", "effect") if (value := getattr(toleration, field))}
            for toleration in resources.tolerations
        ]
    if resources.shared_memory:
        config["emptyDirMounts"] = [
            {
                "volumeName": "shared-memory",
                "mountPath": "/dev/shm",
                "medium": "Memory",
                "sizeLimit": resources.shared_memory,
            }
        ]
    if cluster.volumes:
        config["pvcMount"] = [{"constant": volume.claim, "mountPath": volume.path} for volume in cluster.volumes]
    if variables := [secret for secret in cluster.secrets if secret.variables]:
        config["secretAsEnv"] = [
            {
                "secretName": secret.name,
                "keyToEnv": [{"secretKey": key, "envVar": variable} for variable, key in secret.variables.items()],
            }
            for secret in variables
        ]
    if mounted := [secret for secret in cluster.secrets if secret.path]:
        config["secretAsVolume"] = [{"secretName": secret.name, "mountPath": secret.path} for secret in mounted]
    return config
