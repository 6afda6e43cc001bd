"""How MLflow is reached: the client, the local store, and one-line errors instead of half a run."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from marco_model.errors import ClusterError, InputError

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
def client(tracking_uri: str) -> MlflowClient:
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

        from components.mlflow_tracking import bucket_artifacts

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

    What a bucket with artifacts raises (`marco_data.object_store.reaching`) is one line already.
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
