"""What an evaluation found, as plain JSON beside TFMA's files: written once from them, read without TFX or TFMA.

`metrics.json`:

    {"model": "9f2c…", "classes": ["Clear", …], "blessed": true, "thresholds": {"accuracy": 0.8}, "failures": [],
     "slices": {"overall": {"all": SLICE}, "institution": {"CSIRO": SLICE, …}, "imager": {…},
                "institution × imager": {"CSIRO × Rigaku Minstrel": SLICE, …}}}

`model`: the hash of the files that were judged (`components.pusher.storage.fingerprint`). SLICE: `count` (examples), a
value for each name of `names.metric_names`, `null` where a slice lacks the examples to say, and `confusion_matrix`
(counts, [true class][predicted class]).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.evaluator.names import ALL, COUNT, CROSS_NAME, OVERALL, SLICES, TIMES
from marco_model.errors import InputError

METRICS_FILE = "metrics.json"


def slice_metrics(evaluation_uri: str) -> dict[str, Any]:
    """Returns the content of `metrics.json` in an evaluation artifact (see above).

    Raises:
        InputError: there is none.
    """
    path = f"{evaluation_uri.rstrip('/')}/{METRICS_FILE}"
    if "://" in path:
        import tensorflow as tf

        with tf.io.gfile.GFile(path) as file:
            return dict(json.load(file))
    if not Path(path).is_file():
        raise InputError(f"no evaluation at {evaluation_uri}: {METRICS_FILE} is missing; run the Evaluator first")
    return dict(json.loads(Path(path).read_text()))


def flat_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Returns metrics for MLflow: `eval/accuracy`, `eval/institution/CSIRO/recall/Crystals`, …; undefined left out.

    MLflow knows no ×: the slices of both features are `eval/institution x imager/CSIRO x Rigaku Minstrel/…`.
    """
    metrics = {}
    for kind, slices in evaluation["slices"].items():
        for value, found in slices.items():
            prefix = "eval" if kind == OVERALL else f"eval/{kind}/{value}".replace("×", "x")
            for name, number in found.items():
                if isinstance(number, int | float):
                    metrics[f"{prefix}/{name}"] = float(number)
    return metrics


def read_tfma(output_path: str, classes: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the `slices` of `metrics.json` from what TFMA wrote to `output_path`."""
    import tensorflow_model_analysis as tfma

    slices: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in (OVERALL, *SLICES, CROSS_NAME)}
    for found in tfma.load_metrics(output_path):
        values = {pair.key.name: pair.value.double_value.value for pair in found.metric_keys_and_values}
        count = int(values.pop(COUNT))
        numbers = {name: None if math.isnan(value) else value for name, value in sorted(values.items())}
        kind, value = _slice_name(found.slice_key)
        slices[kind][value] = {"count": count, **numbers}
    for found in tfma.load_plots(output_path):
        kind, value = _slice_name(found.slice_key)
        slices[kind][value]["confusion_matrix"] = _matrix(found, len(classes))
    return {kind: dict(sorted(values.items())) for kind, values in slices.items()}


def _slice_name(slice_key: Any) -> tuple[str, str]:
    values = {single.column: single.bytes_value.decode() for single in slice_key.single_slice_keys}
    if not values:
        return OVERALL, ALL
    names = [name for name in SLICES if name in values]
    return TIMES.join(names), TIMES.join(values[name] for name in names)


def _matrix(found: Any, classes: int) -> list[list[int]]:
    matrix = [[0] * classes for _ in range(classes)]
    for pair in found.plot_keys_and_values:
        for entry in pair.value.multi_class_confusion_matrix_at_thresholds.matrices[0].entries:
            matrix[entry.actual_class_id][entry.predicted_class_id] = int(entry.num_weighted_examples)
    return matrix


def failures(validation: Any) -> Iterator[str]:
    """Yields a sentence for each threshold of a TFMA `ValidationResult` that was not met."""
    for in_slice in validation.metric_validations_per_slice:
        for failure in in_slice.failures:
            bound = failure.metric_threshold.value_threshold.lower_bound.value
            value = failure.metric_value.double_value.value
            got = "cannot be told from these examples" if math.isnan(value) else f"is {_below(value, bound)}"
            yield f"{failure.metric_key.name} {got}, and at least {bound:g} is wanted"


def _below(value: float, bound: float) -> str:
    """To four digits, or to all where four would look like the bound."""
    return f"{value:.4f}" if float(f"{value:.4f}") < bound else repr(value)
