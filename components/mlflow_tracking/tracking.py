"""One MLflow run a training, found again by its key, and what is written to it.

Trainer, Evaluator and Pusher are separate processes, perhaps on separate machines: the Trainer opens the run and leaves
its id in `training.json` of the model artifact; the others read it there. A training that is resumed has the same key
and so finds the run it began.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from components.mlflow_tracking import connection, provenance
from marco_data.files import exists, read_bytes
from marco_data.relabelling.overlay import overlay_fingerprint
from marco_model.errors import InputError

RUN_KEY = "marco.run_key"
TRAINING_FILE = "training.json"
_NOT_ALLOWED = re.compile(r"[^\w\-. :/]")
_PARAMETERS_A_BATCH, _METRICS_A_BATCH = 100, 1000  # MLflow's limits.


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of the store at `tracking_uri`. Every method raises `InputError` when the store fails."""

    tracking_uri: str
    run_id: str

    def log_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Logs a nested mapping as parameters `a.b.c`. A resumed training may repeat values, not change them."""
        from mlflow.entities import Param

        parameters = [Param(allowed_name(name), str(value)) for name, value in flatten(recipe)]
        client = connection.client(self.tracking_uri)
        with connection.reaching(self.tracking_uri):
            for start in range(0, len(parameters), _PARAMETERS_A_BATCH):
                client.log_batch(self.run_id, params=parameters[start : start + _PARAMETERS_A_BATCH])

    def log_curves(self, step: int, values: Mapping[str, float]) -> None:
        """Logs one point of each curve at a training step."""
        self._log_metrics(values, step)

    def log_slices(self, values: Mapping[str, float]) -> None:
        """Logs judged metrics, such as `eval/institution/CSIRO/accuracy` → 0.93; the undefined (NaN) are left out."""
        self._log_metrics({name: value for name, value in values.items() if not math.isnan(value)}, step=0)

    def log_data(
        self, *, name: str, fingerprint: str, source: str, counts: Mapping[str, int], overlay: str = ""
    ) -> None:
        """Logs the training data as a dataset input and as the tag `data.fingerprint`.

        `fingerprint` is a hash of the content, `source` the URI it came from, `counts` the number of images a split.
        `overlay`, where labels came from one, becomes the tags `data.overlay` and `data.overlay_fingerprint`.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name=name,
            digest=fingerprint[:36],  # The column of MLflow's data base is that wide; the tag holds it whole.
            source_type="local" if "://" not in source else source.partition("://")[0],
            source=json.dumps({"uri": source}),
            profile=json.dumps(dict(counts)),
        )
        client = connection.client(self.tracking_uri)
        with connection.reaching(self.tracking_uri):
            client.log_inputs(self.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
            client.set_tag(self.run_id, "data.fingerprint", fingerprint)
        if overlay:
            self.set_tags({"data.overlay": overlay, "data.overlay_fingerprint": overlay_fingerprint(overlay)})

    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """Stores a matplotlib figure, such as `confusion_matrix.png`, as an artifact."""
        client = connection.client(self.tracking_uri)
        with connection.reaching(self.tracking_uri):
            client.log_figure(self.run_id, figure, artifact_file)

    def log_folder(self, folder: str, artifact_path: str) -> None:
        """Stores the files of a folder of this machine, such as a report, as artifacts below `artifact_path`."""
        client = connection.client(self.tracking_uri)
        with connection.reaching(self.tracking_uri):
            client.log_artifacts(self.run_id, folder, artifact_path)

    def tags(self) -> dict[str, str]:
        """Returns the run's tags."""
        client = connection.client(self.tracking_uri)
        with connection.reaching(self.tracking_uri):
            return dict(client.get_run(self.run_id).data.tags)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        client = connection.client(self.tracking_uri)
        with connection.reaching(self.tracking_uri):
            for name, value in tags.items():
                client.set_tag(self.run_id, allowed_name(name), value)

    def close(self, status: str = "FINISHED") -> None:
        """Sets the status: `FINISHED`, `FAILED` or `KILLED`. Metrics can still be added afterwards."""
        client = connection.client(self.tracking_uri)
        with connection.reaching(self.tracking_uri):
            client.set_terminated(self.run_id, status=status)

    def _log_metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(allowed_name(name), float(value), now, step) for name, value in values.items()]
        client = connection.client(self.tracking_uri)
        with connection.reaching(self.tracking_uri):
            for start in range(0, len(metrics), _METRICS_A_BATCH):
                client.log_batch(self.run_id, metrics=metrics[start : start + _METRICS_A_BATCH])


def open_run(tracking_uri: str, experiment: str, run_key: str, run_name: str, artifacts: str | None = None) -> Run:
    """Returns the run with the tag `marco.run_key` in `experiment`, created with its provenance if there is none.

    `MLFLOW_RUN_ID`, when set (Kubeflow Pipelines 2.17 does), names the run to use instead. Keys are free of quotes.
    `artifacts`: the URI below which `experiment` keeps its models and figures, which MLflow sets once and for all.

    Raises:
        InputError: the store cannot be reached, the run of `MLFLOW_RUN_ID` is not in it, `experiment` keeps its
            artifacts elsewhere, or they can't be reached.
        ClusterError: the service of a bucket with artifacts fails.
    """
    given = os.environ.get("MLFLOW_RUN_ID")
    client = connection.client(tracking_uri)
    with connection.reaching(tracking_uri):
        if given:
            client.set_tag(given, RUN_KEY, run_key)
            return Run(tracking_uri, given)
        experiment_id = _experiment_id(client, tracking_uri, experiment, artifacts)
        found = client.search_runs([experiment_id], f"tags.`{RUN_KEY}` = '{run_key}'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            client.update_run(run_id, status="RUNNING")
        else:
            tags = {RUN_KEY: run_key, **_provenance_tags()}
            run_id = str(client.create_run(experiment_id, tags=tags, run_name=run_name).info.run_id)
        if artifacts:
            client.list_artifacts(run_id)  # A wrong bucket is better told now than after the training.
        return Run(tracking_uri, run_id)


def run_of_model(model_uri: str) -> Run | None:
    """Returns the run that trained the model artifact at `model_uri`, or None if it was trained without MLflow."""
    path = os.path.join(model_uri, TRAINING_FILE)  # noqa: PTH118 - may be an object-store URI
    if not exists(path):
        return None
    content = json.loads(read_bytes(path))
    if not content.get("mlflow_run_id") or not content.get("tracking_uri"):
        return None
    return Run(content["tracking_uri"], content["mlflow_run_id"])


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (`a.b.c`, value) of nested mappings; sequences stay values."""
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def allowed_name(name: str) -> str:
    """Returns `name` with what MLflow refuses in names replaced by `_`."""
    return _NOT_ALLOWED.sub("_", name)


def _experiment_id(client: Any, tracking_uri: str, name: str, artifacts: str | None) -> str:
    existing = client.get_experiment_by_name(name)
    if existing is None:
        location = artifacts or connection.artifact_location(tracking_uri)
        return str(client.create_experiment(name, artifact_location=location))
    if existing.lifecycle_stage != "active":
        raise InputError(f"MLflow experiment {name!r} was deleted; restore it or name another experiment")
    if artifacts and existing.artifact_location.rstrip("/") != artifacts.rstrip("/"):
        raise InputError(
            f"MLflow experiment {name!r} keeps its artifacts at {existing.artifact_location}, and tracking.artifacts "
            f"is {artifacts}; leave that out, or name another experiment"
        )
    return str(existing.experiment_id)


def _provenance_tags() -> dict[str, str]:
    tags = {f"runtime.{name}": version for name, version in provenance.runtime_versions().items()}
    known = provenance.commit()
    if known:
        tags |= {"mlflow.source.git.commit": known[0], "git.dirty": str(known[1]).lower()}
    return tags
