"""Compiles the graph into a Kubeflow Pipelines package, schema 2.1 (facts in docs/kubeflow.md)."""

from __future__ import annotations

import pathlib

from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from marco_model.errors import InputError


def compile_package(pipeline: tfx_pipeline.Pipeline, output: pathlib.Path, image: str) -> None:
    """Writes `pipeline` to `output`, a `.yaml` file: the API server of Kubeflow Pipelines takes no other.

    `image` holds this project and is used by every step. Raises `InputError` for another ending.
    """
    if output.suffix != ".yaml":
        raise InputError(f"--output is {output}; Kubeflow Pipelines takes only .yaml packages")
    output.parent.mkdir(parents=True, exist_ok=True)
    config = kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(default_image=image, use_pipeline_spec_2_1=True)
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        config, output_dir=str(output.parent), output_filename=output.name
    )
    runner.run(pipeline, write_out=True)
