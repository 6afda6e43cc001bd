"""Where a run keeps its files: below one output folder, unless the configuration says otherwise."""

import dataclasses
from pathlib import Path

from components import machines, mlflow_runs
from components.trainer import job
from marco_model import InputError, store
from pipelines.configuration import Configuration


@dataclasses.dataclass(frozen=True)
class Places:
    """Absolute paths or URIs.

    `root`: artifacts of the steps. `checkpoints`: training's, which outlive a killed step. `destination`: blessed
    models, one folder per version. `tracking`: MLflow's URI. `placement`: on a cluster that trains on several nodes,
    what its containers share. `custom_job`: on Vertex AI, the machines of such a training.
    """

    root: str
    checkpoints: str
    destination: str
    tracking: str
    placement: machines.Placement | None = None
    custom_job: job.CustomJob | None = None


def local(configuration: Configuration, output: Path) -> Places:
    """Returns the places of a run on this machine."""
    folder = output.resolve()
    return Places(
        root=str(folder / "pipeline"),
        checkpoints=str(folder / "checkpoints"),
        destination=store.absolute(configuration.destination or str(folder / "models")),
        tracking=configuration.tracking.uri or mlflow_runs.local_store(folder),
    )


def remote(configuration: Configuration, root: str, custom_job: job.CustomJob | None = None) -> Places:
    """Returns the places of a run on a cluster below `root`, a URI or a mounted path.

    What outlives a step is in `cluster.shared` if that is set, otherwise below `root`. Raises `InputError` if that is
    an object store that can't hold it, or if models would be published within a container.
    """
    root, shared = root.rstrip("/"), _lasting(configuration, root)
    if store.is_remote(shared) and not shared.startswith("gs://"):
        raise InputError(f"root {root} cannot hold checkpoints; set cluster.volumes and cluster.shared, a path in one")
    if store.is_remote(shared) and not configuration.tracking.uri:
        raise InputError(f"root {root} cannot hold MLflow's SQLite file; --set tracking.uri=http://HOST of a server")
    destination = configuration.destination
    if destination and not store.is_remote(destination) and not destination.startswith("/"):
        raise InputError(
            f"destination {destination} is not a place on a cluster; give gs://BUCKET/PREFIX, or /PATH of a volume"
        )
    return Places(
        root=f"{root}/pipeline",
        checkpoints=f"{shared}/checkpoints",
        destination=destination or f"{shared}/models",
        tracking=configuration.tracking.uri or f"sqlite:///{shared}/mlflow.db",
        placement=configuration.cluster if configuration.cluster.replicas else None,
        custom_job=custom_job,
    )


def data(configuration: Configuration, root: str) -> str:
    """Returns where a run on a cluster finds its data, or draws them if the configuration names none."""
    return f"{_lasting(configuration, root)}/{'synthetic' if configuration.data.synthetic else 'data'}"


def _lasting(configuration: Configuration, root: str) -> str:
    return configuration.cluster.shared.rstrip("/") or root.rstrip("/")
