"""The TFX component of the report."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from absl import logging
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.orchestration import data_types
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from components import artifacts, gate, mlflow_runs
from components.artifacts import Decision
from components.published_models import on_this_machine
from components.report.page import HTML_FILE, write_report
from components.settings import ReportOptions
from marco_model.labels import CLASSES


class Executor(base_executor.BaseExecutor):
    """Written on this machine first, then copied to where artifacts lie, as a whole."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the report.

        Raises:
            InputError: the evaluation has no predictions or is of other examples, or MLflow cannot be reached.
            ClusterError: the service of a bucket fails.
        """
        model = artifact_utils.get_single_uri(input_dict["model"])
        output = artifact_utils.get_single_uri(output_dict["report"])
        decided = input_dict.get("decision")
        run = mlflow_runs.run_of_model(model)
        trained = path_utils.serving_model_dir(model)
        with tempfile.TemporaryDirectory() as scratch, on_this_machine(trained) as saved_model:
            folder = Path(scratch) / "report"
            write_report(
                folder,
                evaluation_uri=artifact_utils.get_single_uri(input_dict["evaluation"]),
                examples_uri=artifact_utils.get_single_uri(input_dict["examples"]),
                split=exec_properties["split"],
                saved_model=saved_model,
                options=ReportOptions.from_json(exec_properties["options"]),
                decision=gate.read_decision(artifact_utils.get_single_uri(decided)) if decided else None,
                about=_about(run, exec_properties),
            )
            if run:
                run.log_folder(str(folder), "report")
            io_utils.copy_dir(str(folder), output)
        logging.info("The report is %s/%s.", output, HTML_FILE)


def _about(run: mlflow_runs.Run | None, properties: dict[str, Any]) -> dict[str, Any]:
    """Where the run comes from; the commit is that of the code at work, else what MLflow knows of the training's."""
    tags = run.tags() if run else {}
    commit, dirty = mlflow_runs.commit() or (tags.get("mlflow.source.git.commit"), tags.get("git.dirty") == "true")
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "data_fingerprint": properties["data_fingerprint"],
        "synthetic": bool(properties["synthetic"]),
        "mlflow_run_id": run.run_id if run else None,
        "commit": commit,
        "dirty": dirty,
        "versions": [
            {"name": name, "version": version} for name, version in sorted(mlflow_runs.runtime_versions().items())
        ],
    }


class ReportSpec(component_spec.ComponentSpec):
    """What goes in and out."""

    PARAMETERS: ClassVar = {
        "options": component_spec.ExecutionParameter(type=str),
        "split": component_spec.ExecutionParameter(type=str),
        "data_fingerprint": component_spec.ExecutionParameter(type=str),
        "synthetic": component_spec.ExecutionParameter(type=int),
    }
    INPUTS: ClassVar = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "decision": component_spec.ChannelParameter(type=Decision, optional=True),
    }
    OUTPUTS: ClassVar = {"report": component_spec.ChannelParameter(type=artifacts.Report)}


class Report(base_component.BaseComponent):
    """Tells how `model` did on `examples`; outputs `report` (`components.artifacts.Report`)."""

    SPEC_CLASS = ReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        evaluation: types.BaseChannel,
        decision: types.BaseChannel | None = None,
        options: ReportOptions | None = None,
        classes: Sequence[str] = CLASSES,
        split: str = "eval",
        data_fingerprint: str | data_types.RuntimeParameter = "",
        synthetic: bool = False,
    ):
        """Takes what the Evaluator took and gave, and the gate's `decision` where there is one.

        `classes` are the model's; `data_fingerprint` is shown; `synthetic` says that the images are drawn.

        Raises:
            InputError: the target of `options` is none of `classes`.
        """
        options = options or ReportOptions()
        options.target_of(classes)
        spec = ReportSpec(
            options=options.to_json(),
            split=split,
            data_fingerprint=data_fingerprint,
            synthetic=int(synthetic),
            examples=examples,
            model=model,
            evaluation=evaluation,
            decision=decision,
            report=types.Channel(type=artifacts.Report),
        )
        super().__init__(spec=spec)
