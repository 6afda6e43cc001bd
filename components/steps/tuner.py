"""The TFX component of the Tuner: TFX's own, with what a schedule changes as parameters."""

from __future__ import annotations

from typing import Any, ClassVar

from tfx import types
from tfx.components.tuner.executor import Executor as TfxExecutor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts, standard_component_specs
from tfx.utils import json_utils

from components.trainer import parameters
from components.trainer.parameters import TakesParameters, TrainingParameters

TUNER_FN = "components.search.tuner_fn"


class Executor(TakesParameters, TfxExecutor):
    """Searches as `components.search.tuner_fn` says."""


class TunerSpec(standard_component_specs.TunerSpec):
    """What goes in and out."""

    PARAMETERS: ClassVar = {**standard_component_specs.TunerSpec.PARAMETERS, **parameters.SPEC}


class Tuner(base_component.BaseComponent):
    """Searches for better values of the recipe; outputs `best_hyperparameters` and `tuner_results`."""

    SPEC_CLASS = TunerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        training: TrainingParameters,
        custom_config: dict[str, Any],
    ) -> None:
        """Takes what the Trainer does; its `custom_config` has `tuning` too."""
        super().__init__(
            spec=TunerSpec(
                examples=examples,
                transform_graph=transform_graph,
                tuner_fn=TUNER_FN,
                train_args=trainer_pb2.TrainArgs(splits=["train"]),
                eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
                custom_config=json_utils.dumps(custom_config),
                **training.values(),
                best_hyperparameters=types.Channel(type=standard_artifacts.HyperParameters),
                tuner_results=types.Channel(type=standard_artifacts.TunerResults),
            )
        )
