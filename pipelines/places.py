"""Where a run keeps its files, and the training and the gate's look-up that a configuration and these places make.

Everything is below one output folder unless the configuration says otherwise.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from components import champion, machines, mlflow_runs, settings
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


def training_job(configuration: Configuration, classes: Sequence[str], places: Places) -> job.TrainingJob:
    """Returns the training of a configuration, not yet bound to the data of a run: the one definition of it."""
    return job.TrainingJob(
        classes=tuple(classes),
        network=configuration.network,
        recipe=configuration.recipe,
        transform=configuration.transform,
        data=job.DataSet(overlay=configuration.data.overlay),
        tuning=configuration.tuning,
        engine=configuration.engine,
        tflite=configuration.export.tflite,
        tracking=job.TrackingServer(**configuration.tracking.model_dump() | {"uri": places.tracking}),
        name=configuration.model_name,
        checkpoints=places.checkpoints,
        placement=places.placement,
        custom_job=places.custom_job,
    )


def lookup(configuration: Configuration, classes: Sequence[str], places: Places, image: str = "") -> champion.Lookup:
    """Returns where a run looks for the champion.

    Its settings are all that makes a training another one (data and weights by their fingerprints), and where steps are
    kept to be reused: the same training in another place is another run, and has the champion to beat. `image`: the
    container's, which is part of that too.
    """
    content = {
        "training": training_job(configuration, classes, places).identity("run"),
        "data": configuration.data.model_dump(mode="json", exclude={"source", "synthetic"}),
        "labels": configuration.labels.model_dump(mode="json"),
        "kept": [configuration.name, places.root, image],
    }
    return champion.Lookup(
        champion=configuration.gate.champion,
        tracking=places.tracking,
        model_name=configuration.model_name,
        settings=settings.digest(content),
    )
