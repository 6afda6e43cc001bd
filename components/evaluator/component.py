"""The TFX component of the Evaluator, with the standard artifacts of TFX's own."""

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from components.evaluator.eval_config import check_thresholds
from components.evaluator.executor import Executor
from components.evaluator.names import auc_classes
from marco_model.labels import CLASSES


class EvaluatorSpec(component_spec.ComponentSpec):
    """What goes in and out."""

    PARAMETERS: ClassVar = {
        "thresholds": component_spec.ExecutionParameter(type=str),
        "classes": component_spec.ExecutionParameter(type=str),
        "auc_classes": component_spec.ExecutionParameter(type=str),
        "split": component_spec.ExecutionParameter(type=str),
        "batch_size": component_spec.ExecutionParameter(type=int),
    }
    INPUTS: ClassVar = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS: ClassVar = {
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Evaluator(base_beam_component.BaseBeamComponent):
    """Judges `model` on `examples`; outputs `evaluation` and `blessing`.

    The evaluation holds TFMA's files, `metrics.json` and `predictions.parquet`.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        thresholds: Mapping[str, float],
        classes: Sequence[str] = CLASSES,
        split: str = "eval",
        batch_size: int = 64,
    ):
        """Takes ExampleGen's output and a model with the signature `serving_examples`.

        `thresholds`: metric → smallest good value over all examples, such as `{"accuracy": 0.8, "recall/Crystals":
        0.9}` (names: `components.evaluator.names.metric_names`); without any nothing is blessed. `classes` in index
        order; AUC is taken of `components.evaluator.names.auc_classes`. `batch_size`: images in one call.

        Raises:
            InputError: a threshold names no metric, or is not between 0 and 1.
        """
        check_thresholds(thresholds, classes, auc_classes(classes))
        spec = EvaluatorSpec(
            thresholds=json.dumps(dict(thresholds), sort_keys=True),
            classes=json.dumps(list(classes)),
            auc_classes=json.dumps(list(auc_classes(classes))),
            split=split,
            batch_size=batch_size,
            examples=examples,
            model=model,
            evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
            blessing=types.Channel(type=standard_artifacts.ModelBlessing),
        )
        super().__init__(spec=spec)
