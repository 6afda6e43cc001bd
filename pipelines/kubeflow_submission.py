"""A compiled package on its way to Kubeflow Pipelines: read, uploaded once, run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import yaml

from marco_model.errors import InputError
from pipelines.kubeflow_client import pages, reaching

DEFAULT_EXPERIMENT = "marco"


@dataclasses.dataclass(frozen=True)
class Package:
    """A compiled pipeline: its file, its name, its version (of the content), its parameters and its steps."""

    path: pathlib.Path
    name: str
    version: str
    parameters: frozenset[str]
    steps: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Submission:
    """What a run or a schedule is given beside the package; None and empty: as the package and Kubeflow have it."""

    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    pipeline_root: str | None = None
    service_account: str | None = None

    def config(self) -> dict[str, Any]:
        """Returns it as KFP's client takes it."""
        return {
            "params": self.parameters,
            "pipeline_root": self.pipeline_root,
            "service_account": self.service_account,
        }


def read_package(path: pathlib.Path) -> Package:
    """Reads what `marco compile` wrote; raises `InputError` for another file."""
    mend = "give the .yaml file that marco compile wrote"
    if not path.is_file():
        raise InputError(f"there is no package {str(path)!r}; {mend}")
    content = path.read_bytes()
    try:
        spec = next(yaml.safe_load_all(content))
        return Package(
            path=path,
            name=spec["pipelineInfo"]["name"],
            version=hashlib.sha256(content).hexdigest()[:16],
            parameters=frozenset(spec["root"].get("inputDefinitions", {}).get("parameters", {})),
            steps=tuple(spec["root"]["dag"]["tasks"]),
        )
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no compiled pipeline; {mend}") from error


def check_parameters(package: Package, parameters: dict[str, str]) -> None:
    """Raises `InputError` for parameters that the package does not have."""
    if unknown := sorted(set(parameters) - package.parameters):
        known = ", ".join(sorted(package.parameters)) or "none"
        raise InputError(f"the package has no parameter {', '.join(unknown)}; it has {known}")


def find_experiment(client: Any, name: str | None, namespace: str | None, create: bool) -> str:
    """Returns the id of an experiment; the default, `marco`, is made where it is missing, others on demand.

    Raises `InputError` where there is none of this name.
    """
    if there := look_up_experiment(client, name, namespace):
        return there
    if name and not create:
        raise InputError(f"there is no experiment {name!r}; mend --experiment or add --create-experiment")
    with reaching("Kubeflow Pipelines"):
        return str(client.create_experiment(name or DEFAULT_EXPERIMENT, namespace=namespace).experiment_id)


def look_up_experiment(client: Any, name: str | None, namespace: str | None) -> str | None:
    """Returns the id of an experiment, by default `marco`, or None where there is none of this name; makes none."""
    wanted = name or DEFAULT_EXPERIMENT
    with reaching("Kubeflow Pipelines"):
        try:
            return str(client.get_experiment(experiment_name=wanted, namespace=namespace).experiment_id)
        except ValueError:  # KFP's word for "not there".
            return None


def upload(client: Any, package: Package, namespace: str | None = None) -> tuple[str, str, bool]:
    """Returns the ids of the pipeline and of the version that `package` is, and whether it was there already.

    `namespace`: whose pipeline it is, on an installation with several users; by default one that all share.
    The same content is not uploaded twice: a version is named by its content, and so is the description of the first,
    whose name Kubeflow gives.
    """
    note = f"content {package.version}"
    with reaching("Kubeflow Pipelines"):
        pipeline = _pipeline(client, package.name, namespace)
        if pipeline:
            for version in pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline):
                if version.display_name == package.version or version.description == note:
                    return pipeline, str(version.pipeline_version_id), True
            made = client.upload_pipeline_version(
                str(package.path), package.version, pipeline_id=pipeline, description=note
            )
            return pipeline, str(made.pipeline_version_id), False
        pipeline = client.upload_pipeline(
            str(package.path), package.name, description=note, namespace=namespace
        ).pipeline_id
        first = next(pages(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline))
        return str(pipeline), str(first.pipeline_version_id), False


def _pipeline(client: Any, name: str, namespace: str | None) -> str | None:
    """Returns the id of the pipeline of this name in this namespace, in which KFP's own look-up cannot look."""
    named = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    there = pages(client.list_pipelines, "pipelines", namespace=namespace, filter=json.dumps({"predicates": [named]}))
    return next((str(one.pipeline_id) for one in there), None)


def start(
    client: Any,
    experiment: str,
    name: str,
    pipeline: str,
    version: str,
    submission: Submission,
    anew: pathlib.Path | None = None,
) -> str:
    """Starts a run and returns its id; where `anew` is the package's file, the run reuses no step.

    Kubeflow has no such switch for a version, so that run carries the package itself.
    """
    if anew:
        what: dict[str, Any] = {"pipeline_package_path": str(anew), "enable_caching": False}
    else:
        what = {"pipeline_id": pipeline, "version_id": version}
    with reaching("Kubeflow Pipelines"):
        run = client.run_pipeline(experiment_id=experiment, job_name=name, **what, **submission.config())
    return str(run.run_id)
