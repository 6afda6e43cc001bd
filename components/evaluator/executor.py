"""Judges the served model slice by slice, keeps its scores, blesses it or not, and writes the verdict to MLflow."""

import json
from typing import Any

from absl import logging
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.evaluator import prediction_table, predictions, results, slices, tfma_files
from components.evaluator.blessing import bless
from components.evaluator.eval_config import eval_config
from components.evaluator.names import ALL, OVERALL
from components.mlflow_tracking import tracking
from components.mlflow_tracking.confusion_matrix import confusion_matrix_figure
from components.pusher.storage import fingerprint, on_this_machine
from components.worker_errors import expected_errors
from marco_model.errors import InputError

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
        judged = slices.judged(table, classes, auc_classes)
        validation = tfma_files.write(output, judged, config, model_path)
        missed = list(results.failures(validation))
        if not thresholds:
            missed = ["no threshold is set, so nothing can be blessed"]
        evaluation = {
            "model": _fingerprint(model.uri),
            "classes": classes,
            "blessed": validation.validation_ok and not missed,
            "thresholds": thresholds,
            "failures": missed,
            "slices": results.by_name(judged),
        }
        io_utils.write_string_file(f"{output}/{results.METRICS_FILE}", json.dumps(evaluation, indent=1) + "\n")
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
        return fingerprint(folder)


def _track(model_uri: str, evaluation: dict[str, Any]) -> None:
    run = tracking.run_of_model(model_uri)
    if run is None:
        logging.info("The model was trained without MLflow; the evaluation is in its artifact alone.")
        return
    run.log_slices(results.flat_metrics(evaluation))
    run.set_tags({"blessed": str(evaluation["blessed"]).lower(), "failures": "; ".join(evaluation["failures"])})
    overall = evaluation["slices"][OVERALL][ALL]
    title = f"All {overall['count']:,} examples, accuracy {overall['accuracy']:.1%}"
    figure = confusion_matrix_figure(overall["confusion_matrix"], evaluation["classes"], title)
    run.log_figure(figure, "confusion_matrix.png")
