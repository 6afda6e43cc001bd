"""What an evaluation found, as plain JSON beside TFMA's files: read without TFX or TFMA.

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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.evaluator.names import ALL, CROSS_NAME, OVERALL, SLICES, TIMES
from marco_data.files import is_remote
from marco_model.errors import InputError

if TYPE_CHECKING:
    from components.evaluator.slices import Slice

METRICS_FILE = "metrics.json"


def slice_metrics(evaluation_uri: str) -> dict[str, Any]:
    """Returns the content of `metrics.json` in an evaluation artifact (see above).

    Raises:
        InputError: there is none.
    """
    path = f"{evaluation_uri.rstrip('/')}/{METRICS_FILE}"
    if is_remote(path):
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


def by_name(slices: Iterable[Slice]) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the `slices` of `metrics.json`, sorted by their values; no example in a kind leaves it empty."""
    found: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in (OVERALL, *SLICES, CROSS_NAME)}
    for one in slices:
        kind, value = (TIMES.join(texts) for texts in zip(*one.key, strict=True)) if one.key else (OVERALL, ALL)
        numbers = {name: None if math.isnan(share) else share for name, share in sorted(one.metrics.items())}
        found[kind][value] = {"count": one.count, **numbers, "confusion_matrix": one.confusion.tolist()}
    return {kind: dict(sorted(values.items())) for kind, values in found.items()}


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
