"""The Evaluator: judges the trained model by one split of ExampleGen's output, images as they came."""

import json

import apache_beam as beam
from absl import logging
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation
from tfx.utils import io_utils, path_utils

from components import artifacts, evaluations, mlflow_runs, prediction_table, predictions, published_models
from marco_model import model_directory
from marco_model.errors import InputError, expected_errors


@component(use_beam=True)
def Evaluator(
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    evaluation: OutputArtifact[ModelEvaluation],
    blessing: OutputArtifact[ModelBlessing],
    thresholds: Parameter[str],
    classes: Parameter[str],
    split: Parameter[str] = "eval",
    batch_size: Parameter[int] = 64,
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Writes `metrics.json` and `predictions.parquet` into `evaluation`, the blessing, and the MLflow run.

    What is judged is what is served: the SavedModel of `model`, by its signature `serving_examples`. `thresholds`: JSON
    of metric (`components.evaluations.metric_names`) → smallest good value over all examples; without any, nothing is
    blessed. `classes`: JSON of names in index order. `batch_size`: images in one call.

    Raises:
        InputError: the split has no examples, a score is not finite, or MLflow cannot be reached.
    """
    files, saved_model = artifacts.split_files(examples, split), path_utils.serving_model_path(model.uri)
    with expected_errors(), beam_pipeline as pipeline:
        predictions.write_table(pipeline, files, saved_model, batch_size, evaluation.uri)
    table = prediction_table.read(evaluation.uri)
    if table.empty:
        raise InputError(f"split {split!r} has no examples to judge the model by; check the split of the data")
    slices, bounds = evaluations.evaluate(table, json.loads(classes)), json.loads(thresholds)
    missed = evaluations.missed_thresholds(slices[0].metrics, bounds)
    if not bounds:
        missed = ["no threshold is set, so nothing can be blessed"]
    with published_models.on_this_machine(path_utils.serving_model_dir(model.uri)) as folder:
        fingerprint = model_directory.model_fingerprint(folder)
    content = {
        "model": fingerprint,
        "classes": json.loads(classes),
        "blessed": not missed,
        "thresholds": bounds,
        "failures": missed,
        "slices": evaluations.slices_json(slices),
    }
    text = json.dumps(content, indent=1) + "\n"
    io_utils.write_string_file(f"{evaluation.uri}/{evaluations.METRICS_FILE}", text)
    artifacts.bless(blessing, model, not missed)
    if missed:
        logging.warning("The model is not blessed: %s.", "; ".join(missed))
    if run := mlflow_runs.run_of_model(model.uri):
        log_evaluation(run, content)
    else:
        logging.info("The model was trained without MLflow; the evaluation is in its artifact alone.")


def log_evaluation(run: mlflow_runs.Run, evaluation: dict) -> None:
    """Writes the content of `metrics.json` to the run that trained the model: slices, verdict, confusion matrix."""
    run.log_slices(evaluations.flat_metrics(evaluation))
    run.set_tags({"blessed": str(evaluation["blessed"]).lower(), "failures": "; ".join(evaluation["failures"])})
    overall = evaluation["slices"][evaluations.OVERALL][evaluations.ALL]
    title = f"All {overall['count']:,} examples, accuracy {overall['accuracy']:.1%}"
    figure = mlflow_runs.confusion_matrix_figure(overall["confusion_matrix"], evaluation["classes"], title)
    run.log_figure(figure, "confusion_matrix.png")
