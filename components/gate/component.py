"""The TFX component of the gate."""

import dataclasses
import json
from collections.abc import Sequence
from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.orchestration import data_types
from tfx.types import component_spec, standard_artifacts

from components.gate.artifacts import Decision
from components.gate.executor import Executor
from components.gate.rules import Rules
from marco_model.labels import CLASSES


class ChampionGateSpec(component_spec.ComponentSpec):
    """What goes in and out."""

    PARAMETERS: ClassVar = {
        "champion": component_spec.ExecutionParameter(type=str),
        "registered_model": component_spec.ExecutionParameter(type=str),
        "rules": component_spec.ExecutionParameter(type=str),
        "classes": component_spec.ExecutionParameter(type=str),
        "split": component_spec.ExecutionParameter(type=str),
        "batch_size": component_spec.ExecutionParameter(type=int),
    }
    INPUTS: ClassVar = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "model_blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
    OUTPUTS: ClassVar = {
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
        "decision": component_spec.ChannelParameter(type=Decision),
    }


class ChampionGate(base_beam_component.BaseBeamComponent):
    """Compares `model` with the champion on the same examples; outputs the final `blessing`, and `decision`."""

    SPEC_CLASS = ChampionGateSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        evaluation: types.BaseChannel,
        blessing: types.BaseChannel,
        champion: "str | data_types.RuntimeParameter" = "",
        registered_model: str = "",
        rules: Rules | None = None,
        classes: Sequence[str] = CLASSES,
        split: str = "eval",
        batch_size: int = 64,
    ):
        """Takes what the Evaluator took and gave; `champion` as `components.gate.champion.written`, empty for none.

        `registered_model`: whose champion in MLflow's registry counts where it is another one by then; empty where the
        registry does not say which model is to be beaten.

        Raises:
            InputError: `rules` name a class that is none of `classes`.
        """
        rules = rules or Rules()
        rules.recall_index(classes)
        spec = ChampionGateSpec(
            champion=champion,
            registered_model=registered_model,
            rules=json.dumps(dataclasses.asdict(rules), sort_keys=True),
            classes=json.dumps(list(classes)),
            split=split,
            batch_size=batch_size,
            examples=examples,
            model=model,
            evaluation=evaluation,
            model_blessing=blessing,
            blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            decision=types.Channel(type=Decision),
        )
        super().__init__(spec=spec)
