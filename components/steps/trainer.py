"""The TFX component of the Trainer: TFX's own, with what a schedule changes as parameters."""

from __future__ import annotations

from typing import Any, ClassVar

from tfx import types
from tfx.components.trainer.executor import GenericExecutor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts, standard_component_specs
from tfx.utils import json_utils

from components.trainer import parameters
from components.trainer.parameters import TakesParameters, TrainingParameters

RUN_FN = "components.trainer.run.run_fn"


class Executor(TakesParameters, GenericExecutor):
    """Trains as `components.trainer.run.run_fn` does."""


class TrainerSpec(standard_component_specs.TrainerSpec):
    """What goes in and out."""

    PARAMETERS: ClassVar = {**standard_component_specs.TrainerSpec.PARAMETERS, **parameters.SPEC}


class Trainer(base_component.BaseComponent):
    """Trains on `examples`, as transformed by `transform_graph`; outputs `model` and `model_run`."""

    SPEC_CLASS = TrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        training: TrainingParameters,
        custom_config: dict[str, Any],
        hyperparameters: types.BaseChannel | None = None,
    ) -> None:
        """Takes the splits `train` and `eval` of `examples`, and a Tuner's best values where there was a search.

        `custom_config`: what `run_fn` reads, less what `training` gives.
        """
        super().__init__(
            spec=TrainerSpec(
                examples=examples,
                transform_graph=transform_graph,
                hyperparameters=hyperparameters,
                run_fn=RUN_FN,
                train_args=trainer_pb2.TrainArgs(splits=["train"]),
                eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
                custom_config=json_utils.dumps(custom_config),
                **training.values(),
                model=types.Channel(type=standard_artifacts.Model),
                model_run=types.Channel(type=standard_artifacts.ModelRun),
            )
        )
