"""TFMA's own files of an evaluation, so that its notebooks' views and `tfma.load_eval_result` read ours.

TFMA's Beam transforms would compute the same from the same scores, but building and running their 230 stages takes
2 to 3 seconds whatever the number of examples; the table of predictions is in memory anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from google.protobuf import json_format
from tensorflow_model_analysis import constants, version
from tensorflow_model_analysis.evaluators import metrics_validator
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2
from tensorflow_model_analysis.writers import eval_config_writer
from tensorflow_model_analysis.writers import metrics_plots_and_validations_writer as tfma_writer

from components.evaluations import COUNT, Slice
from components.prediction_table import PREDICTIONS_FILE

CONFUSION_MATRIX = "multi_class_confusion_matrix_plot"
"""TFMA's own name for this plot."""


def write(output: str, slices: Sequence[Slice], config: Any, model_path: str) -> Any:
    """Writes metrics, plots, validation and configuration to the folder `output`; returns the `ValidationResult`.

    `config`: TFMA's `EvalConfig`, by whose thresholds TFMA validates. `output` may be a URI.
    """
    metrics = [(one.key, _metrics(one)) for one in slices]
    plots = [(one.key, {_plot_key(): _plot(one)}) for one in slices]
    validation = _validation(metrics, config)
    _records(output, constants.METRICS_KEY, [tfma_writer.convert_slice_metrics_to_proto(one, None) for one in metrics])
    _records(output, constants.PLOTS_KEY, [tfma_writer.convert_slice_plots_to_proto(one, None) for one in plots])
    _records(output, constants.VALIDATIONS_KEY, [validation], sharded=False)
    run = config_pb2.EvalRun(
        eval_config=config,
        version=version.VERSION,
        data_location=PREDICTIONS_FILE,
        file_format="parquet",
        model_locations={"": model_path},
    )
    with tf.io.gfile.GFile(f"{output}/{eval_config_writer.EVAL_CONFIG_FILE}.json", "w") as file:
        file.write(json_format.MessageToJson(run))
    return validation


def _metrics(one: Slice) -> dict[Any, float]:
    values = {COUNT: float(one.count), **one.metrics}
    # The keys of thresholds have `example_weighted` unset.
    return {metric_types.MetricKey(name, example_weighted=None): value for name, value in values.items()}


def _plot_key() -> Any:
    return metric_types.PlotKey(CONFUSION_MATRIX, example_weighted=None)


def _plot(one: Slice) -> Any:
    plot = metrics_for_slice_pb2.MultiClassConfusionMatrixAtThresholds()
    matrix = plot.matrices.add(threshold=0.0)
    for actual, row in enumerate(one.confusion.tolist()):
        for predicted, count in enumerate(row):
            matrix.entries.add(actual_class_id=actual, predicted_class_id=predicted, num_weighted_examples=count)
    return plot


def _validation(metrics: Sequence[tuple[Any, dict[Any, float]]], config: Any) -> Any:
    combiner = tfma_writer.CombineValidations(config)
    result = combiner.create_accumulator()
    for one in metrics:
        result = combiner.add_input(result, metrics_validator.validate_metrics(one, config))
    return combiner.extract_output(result)


def _records(output: str, name: str, messages: Sequence[Any], sharded: bool = True) -> None:
    shard = "-00000-of-00001" if sharded else ""
    with tf.io.TFRecordWriter(f"{output}/{name}{shard}.tfrecord") as writer:
        for message in messages:
            writer.write(message.SerializeToString())
