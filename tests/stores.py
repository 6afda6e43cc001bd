"""Empty MLflow stores: MLflow takes over a second to make a store's tables, so that they are made once and copied."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path


def local_store(folder):
    """Returns the tracking URI of a new, empty store in `folder`, which is made if missing."""
    file = Path(folder).resolve() / "mlflow.db"
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_empty_database(), file)
    return f"sqlite:///{file}"


@functools.cache
def _empty_database() -> Path:
    from mlflow import MlflowClient

    folder = Path(tempfile.mkdtemp(prefix="marco-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    assert MlflowClient(uri, registry_uri=uri).search_registered_models() == []
    return folder / "mlflow.db"
