"""The confusion matrix as a figure."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import logging
import math
import os
import platform
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marco_data.overlay import overlay_fingerprint
from marco_model.errors import ClusterError, InputError
from marco_model.labels import CLASSES
from marco_model.store import exists, read_bytes

CHAMPION, CHALLENGER = "champion", "challenger"
FINGERPRINT = "model.fingerprint"
"""Hash of the SavedModel's files, by which a version is found again; of a run, that of the model it judged last."""
CHAMPIONS = "champions"
"""Tag of the registered model: the versions that were champion, the present one last, as a JSON list."""
PREVIOUS_CHAMPION = "previous_champion"
"""For people: the version that going back from this one leads to, as of when it became champion; empty for none."""
PUBLISHED_AT, SERVED_AT = "published_at", "served_at"
"""Where a version was first published, and last: a model that is promoted again gets a new number."""
SIGNATURE, JUDGED_AGAINST = "marco.signature", "judged_against"
"""Of the run that trained it (`components.champion`), and the champion that it was compared with."""
DATA, COMMIT, EVALUATION = "data.fingerprint", "mlflow.source.git.commit", "evaluation"
"""Tags of the training's run that its version has too."""
PIPELINE, PIPELINE_RUN = "pipeline", "pipeline.run"


PACKAGES = ("tensorflow", "keras", "tfx", "tensorflow-model-analysis", "apache-beam", "numpy", "mlflow")


def runtime_versions() -> dict[str, str]:
    """Returns name → version of Python and the packages that matter, without importing them."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def commit(folder: str | Path | None = None) -> tuple[str, bool] | None:
    """Returns (commit, whether tracked files differ) of the checkout around `folder`, or None if there is none."""
    where = str(folder or Path(__file__).parent)

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", where, *arguments], capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None


if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_CHATTER = ("alembic", "mlflow")
_PROBE_SECONDS = 5.0
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED"}


def local_store(directory: str | Path) -> str:
    """Returns the tracking URI of a SQLite store in `directory` (made if missing); artifacts lie beside it."""
    folder = Path(directory).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def artifact_location(tracking_uri: str) -> str | None:
    """Returns where a new experiment keeps its artifacts: `mlartifacts` beside a SQLite file; a server decides."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return (Path(tracking_uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()


@functools.lru_cache(maxsize=8)
def connect(tracking_uri: str) -> MlflowClient:
    """Returns a client of the store at `tracking_uri`, with MLflow's own talk turned down.

    Raises:
        InputError: the server does not answer.
    """
    _probe(tracking_uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # Read when MLflow is imported.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with reaching(tracking_uri):
        from mlflow.tracking import MlflowClient

        from components import bucket_artifacts

        bucket_artifacts.register()
        for name in _CHATTER:
            logging.getLogger(name).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _probe(tracking_uri: str) -> None:
    """Asks a server once, shortly: MLflow's own client retries for minutes before it gives up."""
    if not tracking_uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(tracking_uri.rstrip("/") + "/health", timeout=_PROBE_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # It answers; a proxy in front may keep /health to itself.
    except OSError as error:
        raise _unreachable(tracking_uri, error) from error


def _unreachable(tracking_uri: str, error: Exception) -> InputError:
    return InputError(f"MLflow at {tracking_uri} failed: {_first_line(error)}; start it or set another tracking URI")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")


@contextlib.contextmanager
def reaching(tracking_uri: str) -> Iterator[None]:
    """Turns what MLflow, its data base or the network raise into one `InputError` that names the store.

    What a bucket with artifacts raises (`marco_model.store.reaching`) is one line already.
    """
    try:
        yield
    except (InputError, ClusterError):
        raise
    except ImportError as error:
        raise InputError(
            f"MLflow at {tracking_uri} needs the package {error.name} for its artifacts; install it (for s3://: boto3)"
        ) from error
    except Exception as error:
        if getattr(error, "error_code", None) in _REFUSALS:
            raise InputError(f"MLflow at {tracking_uri} refuses: {_first_line(error)}; mend what it names") from error
        root = type(error).__module__.partition(".")[0]
        if isinstance(error, OSError) or root in {"mlflow", "sqlalchemy", "sqlite3", "requests", "urllib3"}:
            raise _unreachable(tracking_uri, error) from error
        raise


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
        client = connect(self.tracking_uri)
        with reaching(self.tracking_uri):
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
        client = connect(self.tracking_uri)
        with reaching(self.tracking_uri):
            client.log_inputs(self.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
            client.set_tag(self.run_id, "data.fingerprint", fingerprint)
        if overlay:
            self.set_tags({"data.overlay": overlay, "data.overlay_fingerprint": overlay_fingerprint(overlay)})

    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """Stores a matplotlib figure, such as `confusion_matrix.png`, as an artifact."""
        client = connect(self.tracking_uri)
        with reaching(self.tracking_uri):
            client.log_figure(self.run_id, figure, artifact_file)

    def log_folder(self, folder: str, artifact_path: str) -> None:
        """Stores the files of a folder of this machine, such as a report, as artifacts below `artifact_path`."""
        client = connect(self.tracking_uri)
        with reaching(self.tracking_uri):
            client.log_artifacts(self.run_id, folder, artifact_path)

    def tags(self) -> dict[str, str]:
        """Returns the run's tags."""
        client = connect(self.tracking_uri)
        with reaching(self.tracking_uri):
            return dict(client.get_run(self.run_id).data.tags)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        client = connect(self.tracking_uri)
        with reaching(self.tracking_uri):
            for name, value in tags.items():
                client.set_tag(self.run_id, allowed_name(name), value)

    def close(self, status: str = "FINISHED") -> None:
        """Sets the status: `FINISHED`, `FAILED` or `KILLED`. Metrics can still be added afterwards."""
        client = connect(self.tracking_uri)
        with reaching(self.tracking_uri):
            client.set_terminated(self.run_id, status=status)

    def _log_metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(allowed_name(name), float(value), now, step) for name, value in values.items()]
        client = connect(self.tracking_uri)
        with reaching(self.tracking_uri):
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
    client = connect(tracking_uri)
    with reaching(tracking_uri):
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
        location = artifacts or artifact_location(tracking_uri)
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
    tags = {f"runtime.{name}": version for name, version in runtime_versions().items()}
    known = commit()
    if known:
        tags |= {"mlflow.source.git.commit": known[0], "git.dirty": str(known[1]).lower()}
    return tags


def confusion_matrix_figure(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Any:
    """Returns a matplotlib figure of `counts` [true class, predicted class]: in each cell count and share of the row.

    The colour is the row's share, in `cividis`, which reads the same with and without colour blindness.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = np.asarray(counts, dtype=np.float64)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    # An inch a class, no less than four and no more than what a page can show.
    across = min(max(len(classes), 4), 24)
    figure = Figure(figsize=(2.4 + across, 1.6 + across), layout="constrained")
    FigureCanvasAgg(figure)  # A canvas of its own: pyplot would keep global state and look for a display.
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="cividis", vmin=0.0, vmax=1.0)
    as_it_is = {"parse_math": False}  # A name may have dollars in it.
    slanted = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if len(classes) > len(CLASSES) else {}
    axes.set_xticks(range(len(classes)), classes, **as_it_is, **slanted)
    axes.set_yticks(range(len(classes)), classes, **as_it_is)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title)
    for row in range(len(classes)):
        for column in range(len(classes)):
            axes.text(
                column,
                row,
                f"{int(matrix[row, column]):,}\n{shares[row, column]:.1%}",
                ha="center",
                va="center",
                color="black" if shares[row, column] > 0.55 else "white",
            )
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure
