"""Validates objects against the Kubernetes API's strict schemas, and custom resources against theirs (schemas/)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

_SCHEMAS = Path(__file__).parent / "schemas"


def problems(item: dict[str, Any], version: str) -> list[str]:
    """Returns what a Kubernetes of `version`, such as 1.32, finds wrong with an object, unknown fields included."""
    if item["kind"] == "JobSet":
        return _jobset(item, version)
    if item["kind"] == "Profile":
        return _against(yaml.safe_load((_SCHEMAS / "profile.yaml").read_text()), item)
    if item["kind"] == "InferenceService":
        return _inference_service(item, version)
    if item["kind"] == "ServingRuntime":
        pod = {"containers": item["spec"].get("containers", [])}
        return [*_against(_kserve()["ServingRuntime"], item), *_as_pod(pod, version)]
    return _by_api(item, version)


def _by_api(item: dict[str, Any], version: str) -> list[str]:
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


def _as_pod(spec: dict[str, Any], version: str) -> list[str]:
    return _by_api({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}, version)


def _against(schema: dict[str, Any], item: dict[str, Any]) -> list[str]:
    found = jsonschema.Draft202012Validator(schema).iter_errors(item)
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in found]


def _jobset(item: dict[str, Any], version: str) -> list[str]:
    templates = [job.get("template", {}) for job in item.get("spec", {}).get("replicatedJobs", [])]
    jobs = [
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, **template} for template in templates
    ]
    return [*_against(_jobset_schema(), item), *(what for job in jobs for what in _by_api(job, version))]


@functools.cache
def _jobset_schema() -> dict[str, Any]:
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    schema = JobsetV1alpha2JobSet.model_json_schema(by_alias=True)
    prefix = "JobsetV1alpha2"
    own = {name: part for name, part in schema["$defs"].items() if name.startswith(prefix)}
    for part in [schema, *own.values()]:
        part["additionalProperties"] = False
    for place, values in yaml.safe_load((_SCHEMAS / "jobset.yaml").read_text()).items():
        definition, field = place.split(".")
        own[prefix + definition]["properties"][field]["enum"] = values
    # The Kubernetes API's own schemas are stricter with these.
    schema["$defs"] |= {"IoK8sApiBatchV1JobTemplateSpec": {}, "IoK8sApimachineryPkgApisMetaV1ObjectMeta": {}}
    schema["properties"]["apiVersion"] = {"const": "jobset.x-k8s.io/v1alpha2"}
    schema["properties"]["kind"] = {"const": "JobSet"}
    return {**schema, "required": ["apiVersion", "kind", "metadata", "spec"]}


def _inference_service(item: dict[str, Any], version: str) -> list[str]:
    schema = _kserve()["InferenceService"]
    predictor_fields = schema["properties"]["spec"]["properties"]["predictor"]["properties"]
    predictor = item["spec"]["predictor"]
    added, pod = _split(predictor, predictor_fields)
    added_to_model, container = _split(predictor.get("model", {}), predictor_fields["model"]["properties"])
    if "model" in added:
        added["model"] = added_to_model
    reduced = {**item, "spec": {**item["spec"], "predictor": added}}
    return [*_against(schema, reduced), *_as_pod({**pod, "containers": [{"name": "model", **container}]}, version)]


def _split(item: dict[str, Any], fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return {key: item[key] for key in item if key in fields}, {key: item[key] for key in item if key not in fields}


@functools.cache
def _kserve() -> dict[str, Any]:
    return yaml.safe_load((_SCHEMAS / "kserve.yaml").read_text())
