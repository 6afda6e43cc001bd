"""Compiles the graph into a package of Kubeflow Pipelines or Vertex AI, with the step `Data` in front.

Both packages are one pipeline specification (schema 2.1), which TFX writes; steps run by the same entrypoint. For
Kubeflow it is YAML, with a second document of what only Kubernetes knows; `components.steps.attempts` repeats a step
that fails. For Vertex AI it is JSON without that document; the service repeats steps, and all of a run is on `gs://`.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from tfx.orchestration import data_types
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from components import champion, machines, mlflow_runs, mlflow_store
from components.steps import attempts, cluster_data
from components.trainer import job
from marco_model import InputError, errors, labels, store
from pipelines import configuration as configurations, pipeline, places

_MODULE = ("python", "-m")
ENTRYPOINT = (*_MODULE, "components.steps.entrypoint")
DATA_COMMAND = (*_MODULE, "components.steps.cluster_data")
ATTEMPTS = (*_MODULE, "components.steps.attempts")
# The package's parameters, which a schedule changes; all are strings. Empty: the preset's value.
PARAMETERS = {
    "data": "Shards of scored images: a folder or glob, local to the steps or gs://. Empty: the preset's.",
    "steps": "Steps of training. Empty: the preset's.",
    "run_label": "A label of the run, kept as the tag run_label in MLflow.",
    "run_name": "The run's name in MLflow. Empty: the model's, with a key of the training.",
    "note": "The run's description in MLflow, in Markdown.",
}
_RETRY = {"backoffDuration": "30s", "backoffFactor": 2.0}
# Argo takes it as the time that all attempts may take together, from the start of the first; without it, as none.
_KUBEFLOW_RETRY_SECONDS = 30 * 24 * 3600
_VERTEX_RETRY_SECONDS = 3600  # The most that Vertex AI takes.
# The variables by which a step finds the names of its pod, and the fields in which Kubernetes keeps these.
_POD = {
    "MARCO_POD_NAME": "metadata.name",
    "MARCO_POD_UID": "metadata.uid",
    "MARCO_NAMESPACE": "metadata.namespace",
    "MARCO_RUN": "metadata.labels['pipeline/runid']",
    attempts.NODE: "metadata.annotations['workflows.argoproj.io/node-name']",
}
_KUBERNETES_GPU = machines.Resources().accelerator
DEFAULT_ACCELERATOR = "NVIDIA_TESLA_T4"
_NOT_ON_VERTEX = {
    "volumes": "put data and checkpoints on gs://",
    "shared": "checkpoints lie below --root",
    "secrets": "give the service account of the steps the right to read what they need",
    "replicas": "give machines, those of Vertex AI",
}
"""Settings of `cluster` that Vertex AI has no counterpart for, and what to do instead."""


def compile_for_kubeflow(configuration: configurations.Configuration, root: str, output: Path) -> int:
    """Writes the pipeline of `configuration` to `output`, a `.yaml` file, and returns the number of its steps.

    `root`: a URI for the artifacts, and for all that outlives a run unless the configuration has `cluster.shared`; or a
    mounted path for the latter alone, with the artifacts in Kubeflow Pipelines' own store. Raises `InputError` for
    another ending, which the API server of Kubeflow Pipelines does not take.
    """
    if output.suffix != ".yaml":
        raise InputError(f"--output is {output}; Kubeflow Pipelines takes only .yaml packages")
    package = _package(configuration, root)
    cluster, tasks = configuration.cluster, package["root"]["dag"]["tasks"]
    add_resources(package, cluster, _KUBEFLOW_RETRY_SECONDS)
    for container in _containers(package):
        container["command"] = [*ATTEMPTS, *container["command"][len(_MODULE) :]]
        if cluster.retries:
            container["env"].append({"name": attempts.RETRIES, "value": str(cluster.retries)})
    executors = {f"{step}_executor": _executor_config(cluster, cluster.resources(step)) for step in tasks}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}
    with store.whole_file(output) as file:
        file.write(yaml.safe_dump_all([package, platform], sort_keys=True, width=120))
    return len(tasks)


def compile_for_vertex(configuration: configurations.Configuration, root: str, output: Path) -> int:
    """Writes the pipeline of `configuration` to `output`, a `.json` file, and returns the number of its steps.

    `root`: a `gs://` URI for all that a run keeps. Raises `InputError` for another root or ending, or if the
    configuration has settings that only Kubernetes has.
    """
    if output.suffix != ".json":
        raise InputError(f"--output is {output}; for Vertex AI give a .json file")
    if not root.startswith("gs://"):
        raise InputError(f"--root is {root}; Vertex AI keeps artifacts in a bucket, give gs://BUCKET/FOLDER")
    # Selectors, tolerations and shared memory are ignored: they say where on a cluster a pod runs.
    for field, instead in _NOT_ON_VERTEX.items():
        if getattr(configuration.cluster, field):
            raise InputError(f"cluster.{field} is set, which Vertex AI does not have; {instead}")
    package = _package(configuration, root, _custom_job(configuration))
    accelerator = configuration.vertex.accelerator if configuration.vertex else DEFAULT_ACCELERATOR
    add_resources(package, _rename_gpus(configuration.cluster, accelerator), _VERTEX_RETRY_SECONDS)
    for container in _containers(package):
        if container["command"] == list(ENTRYPOINT):
            container["command"].append("--keep_uris")
    with store.whole_file(output) as file:
        file.write(json.dumps(package, indent=1, sort_keys=True) + "\n")
    return len(package["root"]["dag"]["tasks"])


def _custom_job(configuration: configurations.Configuration) -> job.CustomJob | None:
    """Returns the settings of a training on several machines, or None if the Trainer step trains by itself."""
    if not configuration.machines:
        return None
    if not configuration.vertex:
        raise InputError("machines is set and vertex is not; give vertex.project and vertex.location")
    return job.CustomJob(
        place=configuration.vertex,
        machines=configuration.machines,
        image=configuration.cluster.image,
        environment=configuration.cluster.environment,
    )


def _rename_gpus(cluster: machines.Cluster, accelerator: str) -> machines.Cluster:
    """Returns the cluster with Vertex AI's name for GPUs that have Kubernetes' own."""

    def rename(resources: machines.Resources) -> machines.Resources:
        if resources.accelerator != _KUBERNETES_GPU:
            return resources
        return resources.model_copy(update={"accelerator": accelerator})

    steps = {name: rename(resources) for name, resources in cluster.steps.items()}
    return cluster.model_copy(update={"default": rename(cluster.default), "steps": steps})


def _package(
    configuration: configurations.Configuration, root: str, custom_job: job.CustomJob | None = None
) -> dict[str, Any]:
    """Returns the pipeline with the step `Data` in front, as Kubeflow Pipelines and Vertex AI both take it.

    `custom_job`: see `pipelines.places.Places`.
    """
    for name, value in mlflow_runs.flatten({"root": root, **configuration.model_dump()}):
        errors.refuse_credentials(str(value), name)
    where = places.remote(configuration, root, custom_job)
    data = configuration.data.source or places.data(configuration, root)
    scheme = configurations.label_scheme(configuration.labels, data)
    package = _compile(configuration, where, scheme)
    if store.is_remote(root):
        package["defaultPipelineRoot"] = where.root  # TFX leaves it out.
    lookup = pipeline.lookup(configuration, scheme.classes, where, image=configuration.cluster.image)
    add_data_step(package, configuration, places.data(configuration, root), lookup.model_dump_json())
    for container in _containers(package):
        container["env"] = [{"name": mlflow_store.RUN_VARIABLE, "value": where.tracking}]
    return package


def _compile(
    configuration: configurations.Configuration, where: places.Places, scheme: labels.LabelScheme
) -> dict[str, Any]:
    """Returns what TFX compiles, with parameters of the package where a schedule or the step `Data` gives a value."""

    def parameter(name: str) -> data_types.RuntimeParameter:
        return data_types.RuntimeParameter(name=name, ptype=str)

    graph = pipeline.create_pipeline(
        configuration,
        where,
        scheme,
        job.TrainingParameters(
            parameter("source"), parameter("fingerprint"), parameter("initial"), steps=parameter("steps")
        ),
        judging=champion.Judging(parameter("champion"), parameter("signature")),
        run_label=parameter("run_label"),
        run_name=parameter("run_name"),
        note=parameter("note"),
    )
    config = kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
        default_image=configuration.cluster.image,
        default_commands=list(ENTRYPOINT),
        use_pipeline_spec_2_1=True,
    )
    return dict(kubeflow_v2_dag_runner.KubeflowV2DagRunner(config).run(graph, write_out=False)["pipelineSpec"])


def add_data_step(
    package: dict[str, Any], configuration: configurations.Configuration, place: str, lookup: str
) -> None:
    """Puts the step `Data` (`components.steps.cluster_data`) in front, and declares the package's parameters.

    TFX compiled the names in `OUTPUTS` as parameters of the package; they become outputs of the step. `place`: where
    the data are if neither the parameter `data` nor the configuration names them. `lookup`: JSON of
    `components.champion.Lookup`.
    """
    step, data = machines.DATA_STEP, configuration.data
    tasks = package["root"]["dag"]["tasks"]
    for task in tasks.values():
        if _take_from_data_step(task.get("inputs", {}).get("parameters", {})):
            task["dependentTasks"] = sorted({*task.get("dependentTasks", []), step})
    inputs = ("data", "steps")
    tasks[step] = {
        "taskInfo": {"name": step},
        "componentRef": {"name": step},
        "cachingOptions": {"enableCache": False},
        "inputs": {"parameters": {name: {"componentInputParameter": name} for name in inputs}},
    }
    package["components"][step] = {
        "executorLabel": f"{step}_executor",
        "inputDefinitions": {"parameters": {name: {"parameterType": "STRING"} for name in inputs}},
        "outputDefinitions": {"parameters": {name: {"parameterType": "STRING"} for name in cluster_data.OUTPUTS}},
    }
    arguments = {
        "source": "{{$.inputs.parameters['data']}}",
        "steps": "{{$.inputs.parameters['steps']}}",
        "place": place,
        "synthetic": json.dumps(data.synthetic.model_dump() if data.synthetic else None),
        "initial": configuration.network.initial,
        "lookup": lookup,
        **({"overlay": data.overlay} if data.overlay else {}),
        **{f"{name}-file": f"{{{{$.outputs.parameters['{name}'].output_file}}}}" for name in cluster_data.OUTPUTS},
    }
    package["deploymentSpec"]["executors"][f"{step}_executor"] = {
        "container": {
            "image": configuration.cluster.image,
            "command": list(DATA_COMMAND),
            "args": [part for name, value in arguments.items() for part in (f"--{name}", value)],
        }
    }
    declared = {name: {"description": text, "defaultValue": ""} for name, text in PARAMETERS.items()}
    declared["data"]["defaultValue"] = data.source or ""
    package["root"]["inputDefinitions"] = {
        "parameters": {
            name: {**values, "parameterType": "STRING", "isOptional": True} for name, values in declared.items()
        }
    }


def _take_from_data_step(parameters: dict[str, Any]) -> bool:
    """Takes the parameters in `OUTPUTS` from the step `Data`, in place; returns whether there were any."""
    taken = [item for item in parameters.values() if item.get("componentInputParameter") in cluster_data.OUTPUTS]
    for parameter in taken:
        output = parameter.pop("componentInputParameter")
        parameter["taskOutputParameter"] = {"producerTask": machines.DATA_STEP, "outputParameterKey": output}
    return bool(taken)


def _containers(package: dict[str, Any]) -> list[dict[str, Any]]:
    return [executor["container"] for executor in package["deploymentSpec"]["executors"].values()]


def add_resources(package: dict[str, Any], cluster: machines.Cluster, retry_seconds: int) -> None:
    """Gives each container resources and environment, and each task its retries for at most `retry_seconds`."""
    executors = package["deploymentSpec"]["executors"]
    for step, task in package["root"]["dag"]["tasks"].items():
        container = executors[f"{step}_executor"]["container"]
        container["resources"] = _resources(cluster.resources(step))
        environment = container.setdefault("env", [])
        environment += [{"name": name, "value": value} for name, value in cluster.environment.items()]
        if cluster.retries:
            limits = {"maxRetryCount": cluster.retries, "backoffMaxDuration": f"{retry_seconds}s"}
            task["retryPolicy"] = {**_RETRY, **limits}


def _resources(resources: machines.Resources) -> dict[str, Any]:
    cores, gigabytes = float(resources.cpu), machines.quantity_bytes(resources.memory) / 1e9
    limits = {"cpuLimit": cores, "cpuRequest": cores, "memoryLimit": gigabytes, "memoryRequest": gigabytes}
    if not resources.accelerators:
        return limits
    return {**limits, "accelerator": {"type": resources.accelerator, "count": str(resources.accelerators)}}


def _executor_config(cluster: machines.Cluster, resources: machines.Resources) -> dict[str, Any]:
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
        memory = {"volumeName": "shared-memory", "mountPath": "/dev/shm", "medium": "Memory"}
        config["emptyDirMounts"] = [{**memory, "sizeLimit": resources.shared_memory}]
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
