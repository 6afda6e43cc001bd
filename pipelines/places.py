"""Where a run keeps its files and finds its data: below one output folder, unless the configuration says otherwise."""

import dataclasses
from pathlib import Path

from components import machines, mlflow_store, settings
from components.trainer import job
from marco_data import overlay, place_reader, synthetic
from marco_model import InputError, model_directory, network, store
from pipelines.configuration import Configuration


@dataclasses.dataclass(frozen=True)
class Places:
    """Absolute paths or URIs.

    `root`: artifacts of the steps. `checkpoints`: training's, which outlive a killed step. `destination`: blessed
    models, one folder per version. `tracking`: MLflow's URI. `placement`: on a cluster that trains on several nodes,
    what its containers share. `custom_job`: on Vertex AI, the machines of such a training. `gpus`: those that are asked
    for each process that trains.
    """

    root: str
    checkpoints: str
    destination: str
    tracking: str
    placement: machines.Placement | None = None
    custom_job: job.CustomJob | None = None
    gpus: int = 0


def local(configuration: Configuration, output: Path) -> Places:
    """Returns the places of a run on this machine."""
    folder = output.resolve()
    return Places(
        root=str(folder / "pipeline"),
        checkpoints=str(folder / "checkpoints"),
        destination=store.absolute(configuration.destination or str(folder / "models")),
        tracking=mlflow_store.default_store(configuration.tracking.uri),
    )


def absolute(configuration: Configuration) -> Configuration:
    """Returns the configuration with absolute paths of its overlay, names and champion, which steps read elsewhere.

    Overlay and names are read first, and the champion looked for, so that errors come early.
    """
    data, rules = configuration.data, configuration.gate
    if data.overlay:
        overlay.read_overlay(data.overlay)
        data = data.model_copy(update={"overlay": store.absolute(data.overlay)})
    if data.names:
        place_reader.NamedPlaces(data.names)
        if place_reader.is_table(data.names):
            data = data.model_copy(update={"names": store.absolute(data.names)})
    if rules.champion not in (settings.REGISTRY, settings.NONE, network.RELEASED):
        rules = rules.model_copy(update={"champion": store.absolute(rules.champion)})
        if not store.is_object(rules.champion):
            try:
                model_directory.saved_model_directory(rules.champion)
            except InputError as error:
                raise InputError(
                    f"gate.champion is {rules.champion}: {error}; give {settings.REGISTRY}, {settings.NONE}, "
                    f"{network.RELEASED}, a model's folder, or gs://BUCKET/FOLDER"
                ) from None
    return configuration.model_copy(update={"data": data, "gate": rules})


def local_data(configuration: Configuration, output: Path) -> str:
    """Returns where the shards of a local run are, drawn if so configured; raises `InputError` if no data are named."""
    data = configuration.data
    if data.source:
        return store.absolute(data.source)
    if data.synthetic is None:
        raise InputError("the configuration names no data; give --data FOLDER, or data.synthetic in the preset")
    folder = output.resolve() / "data"
    drawn = synthetic.Settings(**data.synthetic.model_dump(exclude={"images"}))
    synthetic.synthesize(folder, data.synthetic.images, drawn, overwrite=True)
    return str(folder)


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
        gpus=_gpus(configuration.cluster, custom_job),
    )


def _gpus(cluster: machines.Cluster, custom_job: job.CustomJob | None) -> int:
    if custom_job:
        return custom_job.machines.accelerators
    return (cluster.replicas.worker if cluster.replicas else cluster.resources("Trainer")).accelerators


def data(configuration: Configuration, root: str) -> str:
    """Returns where a run on a cluster finds its data, or draws them if the configuration names none."""
    return f"{_lasting(configuration, root)}/{'synthetic' if configuration.data.synthetic else 'data'}"


def _lasting(configuration: Configuration, root: str) -> str:
    return configuration.cluster.shared.rstrip("/") or root.rstrip("/")
