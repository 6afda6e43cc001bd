"""The TFX component of the Pusher, with the standard artifacts of TFX's own."""

from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.orchestration import data_types
from tfx.types import component_spec, standard_artifacts

from components.gate.parameters import Judging
from components.pusher.executor import Executor


class PusherSpec(component_spec.ComponentSpec):
    """What goes in and out."""

    PARAMETERS: ClassVar = {
        "destination": component_spec.ExecutionParameter(type=str),
        "registered_model": component_spec.ExecutionParameter(type=str),
        "run_label": component_spec.ExecutionParameter(type=str),
        "judged_against": component_spec.ExecutionParameter(type=str),
        "signature": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
    OUTPUTS: ClassVar = {"pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel)}


class Pusher(base_component.BaseComponent):
    """Publishes `model` if `model_blessing` says so; outputs `pushed_model` (`components.pusher.record`).

    TFX's own Pusher copies file by file to where servers look; this one shows a version all at once.
    """

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        model_blessing: types.BaseChannel,
        destination: "str | data_types.RuntimeParameter",
        registered_model: "str | data_types.RuntimeParameter" = "",
        run_label: "str | data_types.RuntimeParameter" = "",
        judging: Judging | None = None,
    ):
        """Takes a folder for versions, a name in MLflow's registry and a label of the run; empty for none.

        `judging`: what the gate was told, kept with the registered version.
        """
        judging = judging or Judging()
        spec = PusherSpec(
            destination=destination,
            registered_model=registered_model,
            run_label=run_label,
            judged_against=judging.champion,
            signature=judging.signature,
            model=model,
            model_blessing=model_blessing,
            pushed_model=types.Channel(type=standard_artifacts.PushedModel),
        )
        super().__init__(spec=spec)
