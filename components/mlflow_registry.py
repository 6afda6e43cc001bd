"""Versions of the registered model in MLflow: register, list, make one the champion, go back to the one before.

A version is published again from MLflow's own copy, which is checked against its registered fingerprint. Servers take
the newest number below a destination, so going back publishes the earlier model under a new number. The model is
published first and the registry is changed second: a champion can always be served, and a failed command can be
repeated.
"""

import contextlib
import datetime
import importlib.metadata
import io
import itertools
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components import mlflow_runs, mlflow_store, settings
from marco_model import errors, model_directory, store

log = logging.getLogger(__name__)

REGISTERED = "models:/"
"""How MLflow's URI of a registered version begins, `models:/NAME/VERSION`."""

_MOST_CHAMPIONS = 100  # MLflow's tags hold 5,000 characters.
_LINEAGE = (mlflow_runs.DATA, mlflow_runs.COMMIT, mlflow_runs.EVALUATION)
"""Tags of the training's run that its version gets too."""


def succession(client: Any, name: str) -> list[str]:
    """Returns the numbers of the versions that were champion and not rolled back, the current one last.

    Versions that were deleted in MLflow are left out. An alias that was moved in MLflow itself counts as a rollback if
    it moved to the champion before, else as a promotion.
    """
    existing = _versions(client, name)
    current = _holders(client, name).get(mlflow_runs.CHAMPION, "")
    recorded = (version for version in _recorded_champions(client, name) if version in existing)
    versions = [version for version, _ in itertools.groupby(recorded)]
    if current not in existing or versions[-1:] == [current]:
        return versions
    return versions[:-1] if versions[-2:-1] == [current] else [*versions, current]


def find_champion(client: Any, name: str) -> Any:
    """Returns the version that is champion; None if there is no model of this name, or none of it was ever champion.

    Without the alias, which MLflow takes away from a version that is deleted, the last that was champion and still
    exists counts. Raises `InputError` if all that were champion are deleted.
    """
    if not client.search_registered_models(f"name = '{name}'"):
        return None
    existing, recorded = _versions(client, name), _recorded_champions(client, name)
    current = _holders(client, name).get(mlflow_runs.CHAMPION, "")
    if current in existing:
        return existing[current]
    if not current and not recorded:
        return None
    before = succession(client, name)
    if not before:
        lost = ", ".join(recorded or [current])
        raise errors.InputError(
            f"version {lost} of {name} was champion and is deleted in MLflow; marco models promote VERSION makes "
            "another one champion, or with --set gate.champion=none there is none to beat"
        )
    log.warning(
        "No version of %s has the alias champion in MLflow: version %s was it last and counts.", name, before[-1]
    )
    return existing[before[-1]]


def _versions(client: Any, name: str) -> dict[str, Any]:
    """Returns the versions of a registered model by number."""
    return {str(item.version): item for item in client.search_model_versions(f"name = '{name}'")}


def _recorded_champions(client: Any, name: str) -> list[str]:
    tags = client.get_registered_model(name).tags
    return [str(version) for version in json.loads(tags.get(mlflow_runs.CHAMPIONS, "[]"))]


def set_champion(client: Any, name: str, version: str, *, back: bool) -> list[str]:
    """Moves the alias to `version` and returns the succession, with `version` as the current champion.

    `back`: the current champion is rolled back. `succession` corrects what a crash between the two writes leaves.
    """
    versions = succession(client, name)[: -1 if back else None]
    if versions[-1:] != [version]:
        versions.append(version)
    champions = json.dumps(versions[-_MOST_CHAMPIONS:])
    if not back:
        client.set_registered_model_tag(name, mlflow_runs.CHAMPIONS, champions)
    client.set_registered_model_alias(name, mlflow_runs.CHAMPION, version)
    if back:
        client.set_registered_model_tag(name, mlflow_runs.CHAMPIONS, champions)
    return versions


def register(
    run: mlflow_runs.Run,
    name: str,
    saved_model: Path,
    *,
    classes: Sequence[str],
    fingerprint: str,
    published_at: str | None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Registers a SavedModel under `name`, as a product of `run`, and returns the version.

    `fingerprint`: hash of its files. `published_at`: where it is served from, which makes it champion; None if it was
    not blessed, which makes it challenger. `tags`: its provenance, kept in addition to the run's tags about it. Raises
    `InputError` if MLflow cannot be reached.
    """
    with mlflow_store.session(run.tracking_uri) as client:
        same = client.search_model_versions(f"name = '{name}' and tags.`{mlflow_runs.FINGERPRINT}` = '{fingerprint}'")
        version = str(max((int(known.version) for known in same), default=""))
        if not version:
            with mlflow_store.already_existing():
                client.create_registered_model(name)
            with _make_active(run):
                logged = _log_model(saved_model, classes)
                model_tags = {mlflow_runs.FINGERPRINT: fingerprint}
                created = client.create_model_version(
                    name, logged.model_uri, run.run_id, tags=model_tags, model_id=logged.model_id
                )
            version = str(created.version)
        run_tags = client.get_run(run.run_id).data.tags
        lineage = {tag: run_tags[tag] for tag in _LINEAGE if tag in run_tags}
        all_tags = {**lineage, **(tags or {}), "blessed": str(published_at is not None).lower()}
        for tag, value in all_tags.items():
            client.set_model_version_tag(name, version, tag, value)
        if published_at is not None:
            crown(client, name, version, published_at)
        # A champion still serves, whatever a later, stricter evaluation says.
        elif _holders(client, name).get(mlflow_runs.CHAMPION) != version:
            client.set_registered_model_alias(name, mlflow_runs.CHALLENGER, version)
    return version


def crown(client: Any, name: str, version: str, place: str, *, back: bool = False) -> None:
    """Makes a version that is published at `place` the champion; `back`: the champion before it is rolled back."""
    if mlflow_runs.PUBLISHED_AT not in client.get_model_version(name, version).tags:
        client.set_model_version_tag(name, version, mlflow_runs.PUBLISHED_AT, place)
    client.set_model_version_tag(name, version, mlflow_runs.SERVED_AT, place)
    before = set_champion(client, name, version, back=back)[-2:-1]
    client.set_model_version_tag(name, version, mlflow_runs.PREVIOUS_CHAMPION, "".join(before))
    if _holders(client, name).get(mlflow_runs.CHALLENGER) == version:
        client.delete_registered_model_alias(name, mlflow_runs.CHALLENGER)


def _holders(client: Any, name: str) -> dict[str, str]:
    """Returns a registered model's aliases, each with the version that holds it."""
    return {alias: str(holder) for alias, holder in client.get_registered_model(name).aliases.items()}


def _log_model(saved_model: Path, classes: Sequence[str]) -> Any:
    import pandas as pd

    mlflow = mlflow_store.library()
    images = pd.DataFrame({"image_bytes": [example_image()]})
    columns = [*classes, *(f"probability_{name}" for name in classes)]
    outputs = pd.DataFrame({"class": [""], **dict.fromkeys(columns, np.zeros(1, np.float32)), "version": [""]})
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "classes.json"
        names.write_text(json.dumps(list(classes)))
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("scoring_model.py")),
            artifacts={"model": str(saved_model), "classes": str(names)},
            signature=mlflow.models.infer_signature(images, outputs),
            input_example=images,
            pip_requirements=[
                f"{package}=={importlib.metadata.version(package)}" for package in ("mlflow", "tensorflow", "numpy")
            ],
        )


def example_image() -> bytes:
    """Returns a JPEG for people to try a model with: a grey disc on a lighter ground, 640×480."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (640, 480), (200, 200, 200))
    ImageDraw.Draw(image).ellipse((140, 60, 500, 420), fill=(150, 150, 150))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@contextlib.contextmanager
def _make_active(run: mlflow_runs.Run) -> Iterator[None]:
    """Makes `run` MLflow's active run, which its model logging needs, and restores the state afterwards."""
    mlflow = mlflow_store.library()
    tracking_uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(run.tracking_uri)
    try:
        with mlflow.start_run(run_id=run.run_id):
            yield
    finally:
        mlflow.set_tracking_uri(tracking_uri)


class VersionSummary(NamedTuple):
    """A version as `marco models list` shows it; unknown values are empty or None."""

    version: str
    aliases: tuple[str, ...]
    accuracy: float | None
    recall: float | None
    place: str
    created: datetime.datetime
    data: str
    commit: str


class Promotion(NamedTuple):
    """`version` is served from `place`, where it was `unchanged` or is new; `before` was champion until then."""

    version: str
    before: str
    place: str
    unchanged: bool


def list_versions(tracking: str, name: str) -> list[VersionSummary]:
    """Returns the versions of a registered model, newest first; raises `InputError` if it does not exist."""
    with mlflow_store.session(tracking) as client:
        aliases = _aliases(client, tracking, name)
        summaries = []
        for version in _versions(client, name).values():
            metrics = client.get_run(version.run_id).data.metrics if version.run_id else {}
            number = str(version.version)
            summary = VersionSummary(
                version=number,
                aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == number)),
                accuracy=metrics.get("eval/accuracy"),
                recall=metrics.get(f"eval/recall/{settings.CRYSTALS}"),
                place=_place(version.tags),
                created=datetime.datetime.fromtimestamp(version.creation_timestamp / 1000, datetime.timezone.utc),
                data=version.tags.get(mlflow_runs.DATA, ""),
                commit=version.tags.get(mlflow_runs.COMMIT, ""),
            )
            summaries.append(summary)
    return sorted(summaries, key=lambda summary: -int(summary.version))


def promote(tracking: str, name: str, version: str, destination: str | None = None) -> Promotion:
    """Publishes a version to `destination` unless it is the newest there, and makes it champion.

    Without a `destination` it goes where the champion is, or where it was itself, or an earlier champion. `rollback`
    returns to the champion until then.

    Raises:
        InputError: the version does not exist, its files are not the registered ones, or no place is known.
        ClusterError: the service of a bucket fails; nothing was published.
    """
    with mlflow_store.session(tracking) as client:
        champion = _aliases(client, tracking, name).get(mlflow_runs.CHAMPION, "")
        return _serve(client, name, version, champion, destination, back=False)


def rollback(tracking: str, name: str, destination: str | None = None) -> Promotion:
    """Makes the version champion again that was champion before the current one was promoted.

    Each repetition goes back one further, down to the first. A version that was champion twice is returned to twice.
    Versions that were deleted in MLflow are passed over; if the champion is one of them, the last before it is
    restored. Raises what `promote` does, and `InputError` if there is no champion or none before it.
    """
    with mlflow_store.session(tracking) as client:
        current = _aliases(client, tracking, name).get(mlflow_runs.CHAMPION, "")
        recorded, existing = _recorded_champions(client, name), _versions(client, name)
        champion = current or "".join(recorded[-1:])
        if not champion or (not current and champion in existing):
            raise errors.InputError(f"{name} has no champion to go back from; marco models promote VERSION makes one")
        before = succession(client, name)
        before = before[-2:-1] if champion in existing else before[-1:]
        if not before:
            raise errors.InputError(
                f"version {champion} of {name} has no champion before it; marco models promote VERSION takes any other"
            )
        return _serve(client, name, before[0], champion, destination, back=True)


@contextlib.contextmanager
def on_this_machine(tracking: str, uri: str) -> Iterator[Path]:
    """Yields a folder with MLflow's own copy of the SavedModel `models:/NAME/VERSION`, which is deleted afterwards.

    Raises `InputError` if the version does not exist or its files are not the registered ones.
    """
    name, _, number = uri.removeprefix(REGISTERED).rpartition("/")
    with tempfile.TemporaryDirectory(prefix="marco-version-") as folder:
        with mlflow_store.session(tracking) as client:
            saved_model = _download(client, client.get_model_version(name, number), Path(folder))
        yield saved_model


def choose_model(tracking: str, name: str | None) -> str:
    """Returns `name`, by default that of the only registered model in the store, or `marco` if there are several."""
    if name:
        return name
    with mlflow_store.session(tracking) as client:
        names = [model.name for model in client.search_registered_models()]
    return names[0] if len(names) == 1 else "marco"


def _aliases(client: Any, tracking: str, name: str) -> dict[str, str]:
    """Returns the aliases of a registered model; raises `InputError` if it does not exist."""
    if not client.search_registered_models(f"name = '{name}'"):
        known = ", ".join(sorted(model.name for model in client.search_registered_models())) or "none"
        raise errors.InputError(f"there is no registered model {name!r} in {tracking}; it has {known}")
    return _holders(client, name)


def _serve(client: Any, name: str, version: str, champion: str, destination: str | None, *, back: bool) -> Promotion:
    versions = _versions(client, name)
    if version not in versions:
        numbers = ", ".join(sorted(versions, key=int))
        raise errors.InputError(f"{name} has no version {version}; it has {numbers}")
    candidates = (champion, version, *reversed(succession(client, name)))
    places = (_place(versions[candidate].tags) for candidate in candidates if candidate in versions)
    parents = (place.rstrip("/").rpartition("/")[0] for place in places)
    where = store.absolute(destination) if destination else next(filter(None, parents), "")
    if not where:
        raise errors.InputError(f"it is unknown where {name} is published; give --destination, a folder or gs:// URI")
    with tempfile.TemporaryDirectory(prefix="marco-version-") as folder:
        item = versions[version]
        saved_model = _download(client, item, Path(folder))
        note = {"model": item.source, "mlflow_run_id": item.run_id, "registered_version": version}
        from components import published_models

        published = published_models.publish(saved_model, where, note)
    crown(client, name, version, published.path, back=back)
    return Promotion(version, champion, published.path, published.unchanged)


def _place(tags: Mapping[str, str]) -> str:
    """Returns where a version was published last; empty if it was not."""
    return tags.get(mlflow_runs.SERVED_AT) or tags.get(mlflow_runs.PUBLISHED_AT, "")


def _download(client: Any, version: Any, folder: Path) -> Path:
    """Downloads a version's SavedModel, returns its folder; raises `InputError` if it is not the registered model."""
    place = client.get_model_version_download_uri(version.name, version.version)
    download = mlflow_store.library().artifacts.download_artifacts
    download(artifact_uri=place, dst_path=str(folder), tracking_uri=client.tracking_uri)
    graphs = sorted(folder.rglob(model_directory.MODEL_FILE))
    if not graphs:
        raise errors.InputError(
            f"version {version.version} of {version.name} has no {model_directory.MODEL_FILE} in MLflow; train it again"
        )
    registered = version.tags.get(mlflow_runs.FINGERPRINT)
    if registered and model_directory.model_fingerprint(graphs[0].parent) != registered:
        raise errors.InputError(
            f"the files of version {version.version} of {version.name} in MLflow are not those that were registered; "
            "restore them, or train again"
        )
    return graphs[0].parent
