"""Runs in MLflow: where a run comes from, what is logged to it, and the confusion matrix."""

import contextlib
import contextvars
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components import mlflow_store
from marco_data.overlay import overlay_fingerprint
from marco_model import labels, store

CHAMPION, CHALLENGER = "champion", "challenger"
FINGERPRINT = "model.fingerprint"
"""Hash of the SavedModel's files, by which a version is found; of a run, that of the model it judged last."""
CHAMPIONS = "champions"
"""Tag of the registered model: the versions that were champion, the current one last, as a JSON list."""
PREVIOUS_CHAMPION = "previous_champion"
"""For people: the version to which a rollback leads, as of when this one became champion; empty for none."""
PUBLISHED_AT, SERVED_AT = "published_at", "served_at"
"""Where a version was first published, and where last: a model that is promoted again gets a new number."""
SIGNATURE, JUDGED_AGAINST = "marco.signature", "judged_against"
"""The signature of the run that trained it (`components.champion`), and the champion it was compared with."""
DATA, COMMIT, EVALUATION = "data.fingerprint", "mlflow.source.git.commit", "evaluation"
"""Tags of the training's run: its data, the code's commit, and the evaluation of its model."""
PIPELINE, PIPELINE_RUN = "pipeline", "pipeline.run"
RUN_KEY = "marco.run_key"
PARENT, LEFT_OUT = "mlflow.parentRunId", "left_out"
"""Tags of a run: MLflow's own for the run that it is shown below; and what its training did not see."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""
DESCRIPTION = contextvars.ContextVar("DESCRIPTION", default=("", ""))
"""Name and note of the training that runs in this process. With another one it would be the same training."""
TRAINING_FILE = "training.json"
PACKAGES = ("tensorflow", "keras", "tfx", "tensorflow-model-analysis", "apache-beam", "numpy", "mlflow")
_NOT_ALLOWED = re.compile(r"[^\w\-. :/]")
_PARAMETERS_PER_BATCH, _METRICS_PER_BATCH, _LONGEST_NAME = 100, 1000, 250  # MLflow's limits.


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of the store at `tracking_uri`. Every method raises `InputError` when the store fails."""

    tracking_uri: str
    run_id: str

    def log_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Logs a nested mapping as parameters `a.b.c`. A resumed training may repeat values, not change them."""
        param = mlflow_store.library().entities.Param
        parameters = [param(allowed_name(name), str(value)) for name, value in flatten(recipe)]
        self._log("params", parameters, _PARAMETERS_PER_BATCH)

    def log_curves(self, step: int, values: Mapping[str, float]) -> None:
        """Logs one point of each curve at a training step."""
        metric, now = mlflow_store.library().entities.Metric, int(time.time() * 1000)
        metrics = [metric(allowed_name(name), float(value), now, step) for name, value in values.items()]
        self._log("metrics", metrics, _METRICS_PER_BATCH)

    def _log(self, kind: str, entries: list[Any], most: int) -> None:
        with mlflow_store.session(self.tracking_uri) as client:
            for start in range(0, len(entries), most):
                client.log_batch(self.run_id, **{kind: entries[start : start + most]})

    def log_slices(self, values: Mapping[str, float]) -> None:
        """Logs metrics of an evaluation, such as `eval/institution/CSIRO/accuracy` → 0.93; NaN is left out."""
        self.log_curves(0, {name: value for name, value in values.items() if not np.isnan(value)})

    def log_data(
        self, *, name: str, fingerprint: str, source: str, counts: Mapping[str, int], overlay: str = ""
    ) -> None:
        """Logs the training data as a dataset input and as the tag `data.fingerprint`.

        `fingerprint` is a hash of the content, `source` the URI it came from, `counts` the number of images per split.
        `overlay`, if labels came from one, becomes the tags `data.overlay` and `data.overlay_fingerprint`.
        """
        entities = mlflow_store.library().entities
        data = entities.Dataset(
            name=name,
            digest=fingerprint[:36],  # MLflow's column is that wide; the tag holds all of it.
            source_type="local" if "://" not in source else source.partition("://")[0],
            source=json.dumps({"uri": source}),
            profile=json.dumps(dict(counts)),
        )
        context = entities.InputTag("mlflow.data.context", "training")
        with mlflow_store.session(self.tracking_uri) as client:
            client.log_inputs(self.run_id, [entities.DatasetInput(data, [context])])
            client.set_tag(self.run_id, DATA, fingerprint)
        if overlay:
            self.set_tags({"data.overlay": overlay, "data.overlay_fingerprint": overlay_fingerprint(overlay)})

    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """Stores a matplotlib figure, such as `confusion_matrix.png`, as an artifact."""
        with mlflow_store.session(self.tracking_uri) as client:
            client.log_figure(self.run_id, figure, artifact_file)

    def log_folder(self, folder: str, artifact_path: str) -> None:
        """Stores the files of a folder of this machine, such as a report, as artifacts below `artifact_path`."""
        with mlflow_store.session(self.tracking_uri) as client:
            client.log_artifacts(self.run_id, folder, artifact_path)

    def describe(self, name: str = "", note: str = "") -> None:
        """Gives the run a name and a note (Markdown) for people; empty ones change nothing."""
        with mlflow_store.session(self.tracking_uri) as client:
            if name:
                client.update_run(self.run_id, name=name)
            if note:
                client.set_tag(self.run_id, NOTE, note)

    def tags(self) -> dict[str, str]:
        """Returns the run's tags."""
        with mlflow_store.session(self.tracking_uri) as client:
            return dict(client.get_run(self.run_id).data.tags)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        with mlflow_store.session(self.tracking_uri) as client:
            for name, value in tags.items():
                client.set_tag(self.run_id, allowed_name(name), value)

    def close(self, status: str = "FINISHED") -> None:
        """Sets the status: `FINISHED`, `FAILED` or `KILLED`. Metrics can still be added afterwards."""
        with mlflow_store.session(self.tracking_uri) as client:
            client.set_terminated(self.run_id, status=status)


def open_run(tracking_uri: str, experiment: str, run_key: str, run_name: str, artifacts: str | None = None) -> Run:
    """Returns the run with the tag `marco.run_key` in `experiment`, created with its provenance if it does not exist.

    `MLFLOW_RUN_ID` names the run to use instead, unless `MLFLOW_TRACKING_URI` names another server: the MLflow plugin
    of Kubeflow Pipelines 2.17 sets both, to its own server and to a run of each step there. Keys have no quotes.
    `artifacts`: the URI below which `experiment` keeps its models and figures; MLflow never changes it afterwards.

    Raises:
        InputError: the store cannot be reached, the run of `MLFLOW_RUN_ID` is not in it, `experiment` keeps its
            artifacts elsewhere, or they cannot be reached.
        ClusterError: the service of a bucket with artifacts fails.
    """
    same_server = os.environ.get("MLFLOW_TRACKING_URI", tracking_uri).rstrip("/") == tracking_uri.rstrip("/")
    kubeflow_run = os.environ.get("MLFLOW_RUN_ID") if same_server else None
    with mlflow_store.session(tracking_uri) as client:
        if kubeflow_run:
            client.set_tag(kubeflow_run, RUN_KEY, run_key)
            return Run(tracking_uri, kubeflow_run)
        experiment_id = mlflow_store.find_experiment(client, tracking_uri, experiment, artifacts)
        runs = client.search_runs([experiment_id], f"tags.`{RUN_KEY}` = '{run_key}'", max_results=1)
        if runs:
            run_id = str(runs[0].info.run_id)
            client.update_run(run_id, status="RUNNING")
        else:
            tags = {RUN_KEY: run_key} | {f"runtime.{name}": version for name, version in runtime_versions().items()}
            if checkout := commit():
                tags |= {COMMIT: checkout[0], "git.dirty": str(checkout[1]).lower()}
            run_id = str(client.create_run(experiment_id, tags=tags, run_name=run_name).info.run_id)
        if artifacts:
            client.list_artifacts(run_id)  # Reports a wrong bucket before the training, not after it.
        return Run(tracking_uri, run_id)


def training_of_model(model_uri: str) -> dict[str, Any]:
    """Returns how the training of the model artifact ended: `training.json`, empty if it was trained elsewhere."""
    return store.read_json(f"{model_uri}/{TRAINING_FILE}")


def run_of_model(model_uri: str) -> Run | None:
    """Returns the run that trained the model artifact at `model_uri`, or None if it was trained without MLflow.

    Raises `InputError` as `mlflow_store.trust` does.
    """
    content = training_of_model(model_uri)
    tracking_uri, run_id = content.get("tracking_uri"), content.get("mlflow_run_id")
    if not (tracking_uri and run_id):
        return None
    return Run(mlflow_store.trust(tracking_uri, f"{model_uri}/{TRAINING_FILE}"), run_id)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (`a.b.c`, value) of nested mappings; sequences stay values."""
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def allowed_name(name: str) -> str:
    """Returns `name` as MLflow takes it: without its middle if it is too long, and `_` for what it refuses.

    It refuses some characters and, as names may be paths, parts that are empty or dots.
    """
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME // 2 - 1]}_{name[-_LONGEST_NAME // 2 :]}"
    return "/".join("_" if part in ("", ".", "..") else part for part in _NOT_ALLOWED.sub("_", name).split("/"))


def runtime_versions() -> dict[str, str]:
    """Returns name → version of Python and the packages that matter, without importing them."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def commit(folder: str | Path | None = None) -> tuple[str, bool] | None:
    """Returns (commit, whether tracked files differ) of the checkout around `folder`, or None outside one."""
    where = str(folder or Path(__file__).parent)

    def git(*arguments: str) -> str:
        command = ["git", "-C", where, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None


def confusion_matrix_figure(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Any:
    """Returns a matplotlib figure of `counts` [true class, predicted class]: in each cell count and share of the row.

    The colour is the row's share, in `cividis`, which reads the same with and without colour blindness.
    """
    from matplotlib.figure import Figure  # Without pyplot, which keeps global state and looks for a display.

    matrix = np.asarray(counts, dtype=np.float64)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    # One inch per class, from four to what a page can show.
    across = min(max(len(classes), 4), 24)
    figure = Figure(figsize=(2.4 + across, 1.6 + across), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="cividis", vmin=0.0, vmax=1.0)
    plain: dict[str, Any] = {"parse_math": False}  # A name may contain dollar signs.
    many = len(classes) > len(labels.CLASSES)
    slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if many else {}
    axes.set_xticks(range(len(classes)), classes, **plain, **slanted)
    axes.set_yticks(range(len(classes)), classes, **plain)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{int(matrix[row, column]):,}\n{share:.1%}"
        axes.text(column, row, text, ha="center", va="center", color="black" if share > 0.55 else "white")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure
