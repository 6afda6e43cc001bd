"""The TFX component of the report."""

from collections.abc import Sequence
from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.types import component_spec, standard_artifacts

from components.gate.artifacts import Decision
from components.report import artifacts
from components.report.executor import Executor
from components.report.options import ReportOptions
from marco_model.labels import CLASSES


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
    """Tells how `model` did on `examples`; outputs `report` (`components.report.artifacts.Report`)."""

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
        data_fingerprint: "str | data_types.RuntimeParameter" = "",
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
