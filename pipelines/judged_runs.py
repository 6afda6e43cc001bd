"""What a run, a version or a run's folder was found to be by its Evaluator, as counts of each slice."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.evaluator import prediction_table
from components.evaluator.names import ALL, OVERALL, SLICES
from components.evaluator.results import METRICS_FILE, slice_metrics
from components.mlflow_tracking import connection, versions
from components.mlflow_tracking.names import EVALUATION, FINGERPRINT
from marco_data.files import exists
from marco_model.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ACCURACY = "accuracy"
_RUN_ID = re.compile(r"[0-9a-f]{32}")


class Slice(NamedTuple):
    """Which images: `kind` `overall`, `institution` or `imager`, and its value, `all` for the first."""

    kind: str
    value: str


class Share(NamedTuple):
    """A share of images labelled right, and of how many; both counts are None where only the share is known."""

    share: float
    hits: int | None
    images: int | None


@dataclasses.dataclass(frozen=True)
class Judged:
    """`shares`: metric, `accuracy` or `recall/CLASS`, and slice, to what was found. `predictions`: where at hand."""

    label: str
    shares: dict[tuple[str, Slice], Share]
    classes: list[str]
    predictions: pd.DataFrame | None


def find(run: str, tracking: str, name: str) -> Judged:
    """Returns what `run` names: a run's folder, an MLflow run id, or a version or alias of the registered model `name`.

    `tracking`: MLflow's URI or a run's folder, for ids and versions. Raises `InputError` where there is no such run, or
    it was not judged.
    """
    if (Path(run) / "summary.json").is_file():
        return _of_folder(run)
    if _RUN_ID.fullmatch(run):
        return _of_mlflow(run[:8], versions.store(tracking), run)
    if Path(run).is_dir():
        raise InputError(f"{run} holds no summary.json; give the --output of a marco run that has ended")
    store = versions.store(tracking)
    client = connection.client(store)
    with connection.reaching(store):
        version = (
            client.get_model_version(name, run) if run.isdecimal() else client.get_model_version_by_alias(name, run)
        )
    return _of_mlflow(f"version {version.version}", store, version.run_id, version.tags)


def _of_folder(run: str) -> Judged:
    told = json.loads((Path(run) / "summary.json").read_text())
    model = told.get("model_fingerprint") or ""
    evaluation = str(Path(run) / told["evaluation"])
    if _judges(evaluation, model):
        return _of_evaluation(run, evaluation)
    if not told["tracking_uri"]:
        raise InputError(
            f"{evaluation}, which {run}/summary.json names, is not there or of another model, and no MLflow store is "
            "named beside it; run it again"
        )
    return _of_mlflow(run, told["tracking_uri"], told["mlflow_run_id"], {FINGERPRINT: model} if model else {})


def _of_mlflow(label: str, store: str, run_id: str, own: Mapping[str, str] | None = None) -> Judged:
    """`own`: tags of the one model that is meant, since a run that was trained anew has those of the last."""
    client = connection.client(store)
    with connection.reaching(store):
        data = client.get_run(run_id).data
    tags = {**data.tags, **(own or {})}
    evaluation, model = tags.get(EVALUATION, ""), tags.get(FINGERPRINT, "")
    if evaluation and _judges(evaluation, model):
        return _of_evaluation(label, evaluation)
    if data.tags.get(FINGERPRINT, model) != model:
        raise InputError(
            f"the evaluation of {label} is not there, or of another model by now, and run {run_id} in {store} has been "
            "trained anew since; compare another one"
        )
    shares = dict(_of_metrics(data.metrics))
    if not shares:
        raise InputError(f"run {run_id} in {store} was not judged; run it to its end")
    return Judged(label, shares, [], None)


def _judges(evaluation: str, model: str) -> bool:
    """Tells whether an evaluation is there and of the model with this fingerprint: TFX gives its places out again.

    One that does not say which model it judged is believed.
    """
    return exists(f"{evaluation}/{METRICS_FILE}") and slice_metrics(evaluation).get("model", "") in ("", model)


def _of_metrics(metrics: dict[str, float]) -> Any:
    """Yields shares from MLflow's metrics, which count images, but not those of a class."""
    for path, value in metrics.items():
        if not path.startswith("eval/"):
            continue
        parts = path.split("/")
        kind = parts[1] if parts[1] in SLICES else OVERALL
        where = Slice(kind, parts[2]) if kind in SLICES else Slice(OVERALL, ALL)
        metric = "/".join(parts[3:] if kind in SLICES else parts[1:])
        if not (metric == ACCURACY or metric.startswith("recall/")):
            continue
        prefix = path.removesuffix(metric)
        count = metrics.get(f"{prefix}count") if metric == ACCURACY else None
        hits = None if count is None else round(value * count)
        yield (metric, where), Share(value, hits, None if count is None else int(count))


def _of_evaluation(label: str, evaluation: str) -> Judged:
    told = slice_metrics(evaluation)
    shares = {}
    for kind in (OVERALL, *SLICES):
        for value, found in told["slices"][kind].items():
            matrix = found["confusion_matrix"]
            counts = {ACCURACY: (sum(row[index] for index, row in enumerate(matrix)), found["count"])}
            counts |= {
                f"recall/{one}": (matrix[index][index], sum(matrix[index])) for index, one in enumerate(told["classes"])
            }
            for metric, (hits, count) in counts.items():
                if count:
                    shares[metric, Slice(kind, value)] = Share(hits / count, hits, count)
    there = exists(f"{evaluation}/{prediction_table.PREDICTIONS_FILE}")
    return Judged(label, shares, told["classes"], prediction_table.read(evaluation) if there else None)
