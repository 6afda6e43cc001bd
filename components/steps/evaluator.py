"""The TFX component of the Evaluator, with the standard artifacts of TFX's own."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from absl import logging
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from components import evaluations, mlflow_runs, prediction_table, predictions, tfma_files
from components.evaluations import ALL, OVERALL, auc_classes, check_thresholds, eval_config
from components.mlflow_runs import confusion_matrix_figure
from components.published_models import on_this_machine
from marco_model.errors import InputError, expected_errors
from marco_model.labels import CLASSES
from marco_model.model_directory import model_fingerprint


def bless(blessing: types.Artifact, model: types.Artifact, blessed: bool) -> None:
    """Marks the artifact as TFX's own Evaluator does, so that TFX's other components understand it."""
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(f"{blessing.uri}/{name}", "")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(blessed))
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)


Artifacts = dict[str, list[types.Artifact]]


class Executor(base_beam_executor.BaseBeamExecutor):
    """Judges by one split of ExampleGen's output, images as they came: what is judged is what is served."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Writes the evaluation, the blessing and the MLflow run.

        Raises:
            InputError: the split has no examples, a score is not finite, or MLflow cannot be reached.
        """
        classes, auc_classes = json.loads(exec_properties["classes"]), json.loads(exec_properties["auc_classes"])
        thresholds = json.loads(exec_properties["thresholds"])
        config = eval_config(thresholds, classes, auc_classes)
        model = artifact_utils.get_single_instance(input_dict["model"])
        output = artifact_utils.get_single_uri(output_dict["evaluation"])
        split = exec_properties["split"]
        files = split_files(input_dict["examples"], split)
        model_path = path_utils.serving_model_path(model.uri)
        with expected_errors(), self._make_beam_pipeline() as pipeline:
            predictions.write_table(pipeline, files, model_path, exec_properties["batch_size"], output)

        table = prediction_table.read(output)
        if table.empty:
            raise InputError(f"split {split!r} has no examples to judge the model by; check the split of the data")
        judged = evaluations.judged(table, classes, auc_classes)
        validation = tfma_files.write(output, judged, config, model_path)
        missed = list(evaluations.failures(validation))
        if not thresholds:
            missed = ["no threshold is set, so nothing can be blessed"]
        evaluation = {
            "model": _fingerprint(model.uri),
            "classes": classes,
            "blessed": validation.validation_ok and not missed,
            "thresholds": thresholds,
            "failures": missed,
            "slices": evaluations.by_name(judged),
        }
        io_utils.write_string_file(f"{output}/{evaluations.METRICS_FILE}", json.dumps(evaluation, indent=1) + "\n")
        bless(artifact_utils.get_single_instance(output_dict["blessing"]), model, evaluation["blessed"])
        if missed:
            logging.warning("The model is not blessed: %s.", "; ".join(missed))
        _track(model.uri, evaluation)


def split_files(examples: list[types.Artifact], split: str) -> list[str]:
    """Returns the TFRecord files of a split, in the order of their names."""
    folders = artifact_utils.get_split_uris(examples, split)
    return sorted(file for folder in folders for file in fileio.glob(io_utils.all_files_pattern(folder)))


def _fingerprint(model_uri: str) -> str:
    with on_this_machine(path_utils.serving_model_dir(model_uri)) as folder:
        return model_fingerprint(folder)


def _track(model_uri: str, evaluation: dict[str, Any]) -> None:
    run = mlflow_runs.run_of_model(model_uri)
    if run is None:
        logging.info("The model was trained without MLflow; the evaluation is in its artifact alone.")
        return
    run.log_slices(evaluations.flat_metrics(evaluation))
    run.set_tags({"blessed": str(evaluation["blessed"]).lower(), "failures": "; ".join(evaluation["failures"])})
    overall = evaluation["slices"][OVERALL][ALL]
    title = f"All {overall['count']:,} examples, accuracy {overall['accuracy']:.1%}"
    figure = confusion_matrix_figure(overall["confusion_matrix"], evaluation["classes"], title)
    run.log_figure(figure, "confusion_matrix.png")


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
        0.9}` (names: `components.evaluations.metric_names`); without any nothing is blessed. `classes` in index
        order; AUC is taken of `components.evaluations.auc_classes`. `batch_size`: images in one call.

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
