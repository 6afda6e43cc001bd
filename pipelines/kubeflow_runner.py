"""Compiles the graph into a Kubeflow Pipelines package, schema 2.1 (facts in docs/kubeflow.md)."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from typing import Any

import yaml
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from components.gate.parameters import Judging
from components.trainer.parameters import TrainingParameters
from marco_data.files import is_remote
from marco_model.errors import InputError
from pipelines import kubeflow_package, places
from pipelines.configuration import Configuration
from pipelines.judging import lookup
from pipelines.labelling import label_scheme
from pipelines.pipeline import create_pipeline


def compile_package(configuration: Configuration, root: str, output: pathlib.Path) -> int:
    """Writes the pipeline of `configuration` to `output`, a `.yaml` file, and returns the number of its steps.

    `root`: a URI below which artifacts are kept, and all that outlives a run where the configuration has no
    `cluster.shared`; or a mounted path for the latter alone, with artifacts where Kubeflow Pipelines keeps its own. The
    second document of the file is for Kubernetes. Raises `InputError` for another ending: the API server of Kubeflow
    Pipelines takes no other.
    """
    if output.suffix != ".yaml":
        raise InputError(f"--output is {output}; Kubeflow Pipelines takes only .yaml packages")
    package = package_of(configuration, root)
    kubeflow_package.add_resources(package, configuration.cluster)
    platform = kubeflow_package.platform_document(package, configuration.cluster)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(yaml.safe_dump_all([package, platform], sort_keys=True, width=120))
    return len(package["root"]["dag"]["tasks"])


def package_of(configuration: Configuration, root: str, custom_job: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the pipeline with the step `Data` in front, as Kubeflow Pipelines and Vertex AI both take it.

    `custom_job`: see `pipelines.places.Places`.
    """
    where = dataclasses.replace(places.remote(configuration, root), custom_job=custom_job)
    data = configuration.data.source or places.data(configuration, root)
    package = _compiled(configuration, where, data)
    if is_remote(root):
        package["defaultPipelineRoot"] = where.root  # TFX leaves it out.
    kubeflow_package.add_data_step(
        package,
        configuration.cluster.image,
        source=configuration.data.source or "",
        place=places.data(configuration, root),
        synthetic=configuration.data.synthetic.model_dump() if configuration.data.synthetic else None,
        initial=configuration.network.initial,
        lookup=lookup(configuration, where, image=configuration.cluster.image).written(),
        overlay=configuration.data.overlay,
    )
    return package


def _compiled(configuration: Configuration, where: places.Places, data: str) -> dict:
    """Returns what TFX compiles, with parameters of the package where a schedule or the step `Data` gives a value."""

    def parameter(name: str) -> RuntimeParameter:
        return RuntimeParameter(name=name, ptype=str)

    pipeline = create_pipeline(
        configuration,
        where,
        label_scheme(configuration.labels, data),
        TrainingParameters(
            parameter("source"), parameter("fingerprint"), parameter("initial"), steps=parameter("steps")
        ),
        judging=Judging(parameter("champion"), parameter("signature")),
        run_label=parameter("run_label"),
    )
    config = kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
        default_image=configuration.cluster.image,
        default_commands=list(kubeflow_package.ENTRYPOINT),
        use_pipeline_spec_2_1=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(config, output_dir=folder, output_filename="package.yaml")
        runner.run(pipeline, write_out=True)
        return dict(yaml.safe_load((pathlib.Path(folder) / "package.yaml").read_text()))
