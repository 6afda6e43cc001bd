"""Where a run keeps what: everything below one output folder unless the configuration says otherwise."""

from __future__ import annotations

import dataclasses
import pathlib

from components.mlflow_tracking.connection import local_store
from marco_model.errors import InputError
from pipelines.configuration import Configuration


@dataclasses.dataclass(frozen=True)
class Places:
    """Absolute paths or URIs.

    `root`: artifacts of the steps. `checkpoints`: training's, which outlive a killed step. `destination`: blessed
    models, a version a folder. `tracking`: MLflow's URI.
    """

    root: str
    checkpoints: str
    destination: str
    tracking: str


def local(configuration: Configuration, output: pathlib.Path) -> Places:
    """Returns the places of a run on this machine."""
    folder = output.resolve()
    return Places(
        root=str(folder / "pipeline"),
        checkpoints=str(folder / "checkpoints"),
        destination=configuration.destination or str(folder / "models"),
        tracking=configuration.tracking.uri or local_store(folder),
    )


def remote(configuration: Configuration, root: str) -> Places:
    """Returns the places of a run on a cluster below `root`, a URI or a mounted path.

    Raises `InputError` where runs would be tracked in a SQLite file that no object store can hold.
    """
    root = root.rstrip("/")
    if "://" in root and not configuration.tracking.uri:
        raise InputError(f"root {root} cannot hold MLflow's SQLite file; --set tracking.uri=http://HOST of a server")
    return Places(
        root=f"{root}/pipeline",
        checkpoints=f"{root}/checkpoints",
        destination=configuration.destination or f"{root}/models",
        tracking=configuration.tracking.uri or f"sqlite:///{root}/mlflow.db",
    )
