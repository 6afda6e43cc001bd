"""What TFMA computes, over which slices, and the thresholds that decide the blessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluator.names import CROSS, SLICES, metric_names
from marco_model.errors import InputError


def eval_config(thresholds: Mapping[str, float], classes: Sequence[str], auc_classes: Sequence[str]) -> Any:
    """Returns the TFMA `EvalConfig`.

    `thresholds`: metric name → smallest value that is good enough over all examples, such as
    `{"accuracy": 0.8, "recall/Crystals": 0.9}`; without any, no model is ever blessed. `auc_classes`: the classes of
    which AUC against the rest is taken.

    Raises:
        InputError: a threshold names no metric, or is not between 0 and 1.
    """
    # TFMA 0.52 (TFX 1.21) no longer offers these at its top.
    from tensorflow_model_analysis.proto import config_pb2

    check_thresholds(thresholds, classes, auc_classes)
    spec = config_pb2.MetricsSpec()
    for name, bound in thresholds.items():
        # TFMA applies a threshold without slices to every slice; this one is for all examples together.
        threshold = config_pb2.PerSliceMetricThreshold(
            slicing_specs=[config_pb2.SlicingSpec()],
            threshold=config_pb2.MetricThreshold(
                value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": bound})
            ),
        )
        spec.per_slice_thresholds[name].thresholds.append(threshold)
    features = ([], *([feature] for feature in SLICES), list(CROSS))
    slices = [config_pb2.SlicingSpec(feature_keys=keys) for keys in features]
    return config_pb2.EvalConfig(model_specs=[config_pb2.ModelSpec()], metrics_specs=[spec], slicing_specs=slices)


def check_thresholds(thresholds: Mapping[str, float], classes: Sequence[str], auc_classes: Sequence[str]) -> None:
    """Raises InputError for a threshold that could never be met or checked."""
    known = metric_names(classes, auc_classes)
    for name, bound in thresholds.items():
        if name not in known:
            raise InputError(f"threshold {name!r} names no metric; choose from {', '.join(known)}")
        if not 0.0 <= bound <= 1.0:
            raise InputError(f"threshold {name!r} is {bound}; give a share between 0 and 1")
