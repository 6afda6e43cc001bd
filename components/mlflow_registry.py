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
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from components import mlflow_runs, published_models
from components.mlflow_runs import (
    CHALLENGER,
    CHAMPION,
    CHAMPIONS,
    COMMIT,
    DATA,
    EVALUATION,
    FINGERPRINT,
    PREVIOUS_CHAMPION,
    PUBLISHED_AT,
    SERVED_AT,
    Run,
)
from marco_model import model_directory, store
from marco_model.errors import InputError

_MOST_CHAMPIONS = 100  # MLflow's tags hold 5,000 characters.


def succession(client: Any, name: str) -> list[str]:
    """Returns the numbers of the versions that were champion and not rolled back, the current one last.

    An alias that was moved in MLflow itself counts as a rollback if it moved to the champion before, else as a
    promotion.
    """
    model = client.get_registered_model(name)
    current = str(dict(model.aliases).get(CHAMPION, ""))
    versions = [str(version) for version in json.loads(model.tags.get(CHAMPIONS, "[]"))]
    if not current or versions[-1:] == [current]:
        return versions
    return versions[:-1] if versions[-2:-1] == [current] else [*versions, current]


def set_champion(client: Any, name: str, version: str, *, back: bool) -> list[str]:
    """Moves the alias to `version` and returns the succession, with `version` as the current champion.

    `back`: the current champion is rolled back. `succession` corrects what a crash between the two writes leaves.
    """
    versions = succession(client, name)[: -1 if back else None]
    if versions[-1:] != [version]:
        versions.append(version)
    champions = json.dumps(versions[-_MOST_CHAMPIONS:])
    if not back:
        client.set_registered_model_tag(name, CHAMPIONS, champions)
    client.set_registered_model_alias(name, CHAMPION, version)
    if back:
        client.set_registered_model_tag(name, CHAMPIONS, champions)
    return versions


def register(
    run: Run,
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
    not blessed, which makes it challenger. `tags`: its provenance, kept in addition to the run's tags about it.

    Raises `InputError` if MLflow cannot be reached.
    """
    with mlflow_runs.session(run.tracking_uri) as client:
        version = _find_version(client, name, fingerprint)
        if version is None:
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            with _make_active(run):
                logged = _log_model(saved_model, classes)
                created = client.create_model_version(
                    name, logged.model_uri, run.run_id, tags={FINGERPRINT: fingerprint}, model_id=logged.model_id
                )
            version = str(created.version)
        all_tags = {**_lineage(client, run), **(tags or {}), "blessed": str(published_at is not None).lower()}
        for tag, value in all_tags.items():
            client.set_model_version_tag(name, version, tag, value)
        aliases = {alias: str(holder) for alias, holder in client.get_registered_model(name).aliases.items()}
        if published_at is not None:
            crown(client, name, version, published_at)
        elif aliases.get(CHAMPION) != version:  # A champion still serves, whatever a later, stricter evaluation says.
            client.set_registered_model_alias(name, CHALLENGER, version)
    return version


def _find_version(client: Any, name: str, fingerprint: str) -> str | None:
    versions = client.search_model_versions(f"name = '{name}' and tags.`{FINGERPRINT}` = '{fingerprint}'")
    return str(max(int(version.version) for version in versions)) if versions else None


def _lineage(client: Any, run: Run) -> dict[str, str]:
    tags = client.get_run(run.run_id).data.tags
    return {name: tags[name] for name in (DATA, COMMIT, EVALUATION) if name in tags}


def crown(client: Any, name: str, version: str, place: str, *, back: bool = False) -> None:
    """Makes a version that is published at `place` the champion; `back`: the champion before it is rolled back."""
    if PUBLISHED_AT not in client.get_model_version(name, version).tags:
        client.set_model_version_tag(name, version, PUBLISHED_AT, place)
    client.set_model_version_tag(name, version, SERVED_AT, place)
    before = set_champion(client, name, version, back=back)[-2:-1]
    client.set_model_version_tag(name, version, PREVIOUS_CHAMPION, "".join(before))
    if str(dict(client.get_registered_model(name).aliases).get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def _log_model(saved_model: Path, classes: Sequence[str]) -> Any:
    import pandas as pd

    mlflow = mlflow_runs.library()
    types, column = mlflow.types.DataType, mlflow.types.ColSpec
    signature = mlflow.models.ModelSignature(
        inputs=mlflow.types.Schema([column(types.binary, "image_bytes")]),
        outputs=mlflow.types.Schema(
            [
                column(types.string, "class"),
                *(column(types.float, name) for name in classes),
                *(column(types.float, f"probability_{name}") for name in classes),
                column(types.string, "version"),
            ]
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "classes.json"
        names.write_text(json.dumps(list(classes)))
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("scoring_model.py")),
            artifacts={"model": str(saved_model), "classes": str(names)},
            signature=signature,
            input_example=pd.DataFrame({"image_bytes": [example_image()]}),
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
def _make_active(run: Run) -> Iterator[None]:
    """Makes `run` MLflow's active run, which its model logging needs, and restores the state afterwards."""
    mlflow = mlflow_runs.library()
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


def tracking_uri(tracking: str) -> str:
    """Returns MLflow's URI for a URI or a run's folder; raises `InputError` if its SQLite file does not exist."""
    uri = f"sqlite:///{Path(tracking).resolve() / 'mlflow.db'}" if not store.is_remote(tracking) else tracking
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise InputError(f"there is no MLflow store at {uri}; give --tracking a run's folder or MLflow's URI")
    return uri


def list_versions(tracking: str, name: str, recall_class: str = "Crystals") -> list[VersionSummary]:
    """Returns the versions of a registered model, newest first; raises `InputError` if it does not exist."""
    with mlflow_runs.session(tracking) as client:
        aliases = _aliases(client, tracking, name)
        versions = client.search_model_versions(f"name = '{name}'")
        newest_first = sorted(versions, key=lambda version: -int(version.version))
        return [_summarize(client, version, aliases, recall_class) for version in newest_first]


def _summarize(client: Any, version: Any, aliases: dict[str, str], recall_class: str) -> VersionSummary:
    metrics = client.get_run(version.run_id).data.metrics if version.run_id else {}
    number = str(version.version)
    return VersionSummary(
        version=number,
        aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == number)),
        accuracy=metrics.get("eval/accuracy"),
        recall=metrics.get(f"eval/recall/{recall_class}"),
        place=version.tags.get(SERVED_AT) or version.tags.get(PUBLISHED_AT, ""),
        created=datetime.datetime.fromtimestamp(version.creation_timestamp / 1000, datetime.timezone.utc),
        data=version.tags.get(DATA, ""),
        commit=version.tags.get(COMMIT, ""),
    )


def promote(tracking: str, name: str, version: str, destination: str | None = None) -> Promotion:
    """Publishes a version to `destination` unless it is the newest there, and makes it champion.

    Without a `destination` it goes where the champion is, or where it was itself, or an earlier champion. `rollback`
    returns to the champion until then.

    Raises:
        InputError: the version does not exist, its files are not the registered ones, or no place is known.
        ClusterError: the service of a bucket fails; nothing was published.
    """
    with mlflow_runs.session(tracking) as client:
        champion = _aliases(client, tracking, name).get(CHAMPION, "")
        return _serve(client, name, version, champion, destination, back=False)


def rollback(tracking: str, name: str, destination: str | None = None) -> Promotion:
    """Makes the version champion again that was champion before the current one was promoted.

    Each repetition goes back one further, until there is none. A version that was champion twice is returned to twice.
    Raises what `promote` does, and `InputError` if there is no champion or none before it.
    """
    with mlflow_runs.session(tracking) as client:
        champion = _aliases(client, tracking, name).get(CHAMPION, "")
        if not champion:
            raise InputError(f"{name} has no champion to go back from; marco models promote VERSION makes one")
        before = succession(client, name)[-2:-1]
        if not before:
            raise InputError(
                f"version {champion} of {name} has no champion before it; marco models promote VERSION takes any other"
            )
        return _serve(client, name, before[0], champion, destination, back=True)


def _aliases(client: Any, tracking: str, name: str) -> dict[str, str]:
    """Returns the aliases of a registered model; raises `InputError` if it does not exist."""
    if not client.search_registered_models(f"name = '{name}'"):
        known = ", ".join(sorted(model.name for model in client.search_registered_models())) or "none"
        raise InputError(f"there is no registered model {name!r} in {tracking}; it has {known}")
    return {alias: str(holder) for alias, holder in client.get_registered_model(name).aliases.items()}


def _serve(client: Any, name: str, version: str, champion: str, destination: str | None, *, back: bool) -> Promotion:
    versions = {str(item.version): item for item in client.search_model_versions(f"name = '{name}'")}
    if version not in versions:
        numbers = ", ".join(sorted(versions, key=int))
        raise InputError(f"{name} has no version {version}; it has {numbers}")
    candidates = (champion, version, *reversed(succession(client, name)))
    places = (_parent_place(versions.get(candidate)) for candidate in candidates)
    where = store.absolute(destination) if destination else next(filter(None, places), "")
    if not where:
        raise InputError(f"it is unknown where {name} is published; give --destination, a folder or gs:// URI")
    with tempfile.TemporaryDirectory(prefix="marco-version-") as folder:
        saved_model = _download(client, versions[version], Path(folder))
        note = {
            "model": versions[version].source,
            "mlflow_run_id": versions[version].run_id,
            "registered_version": version,
        }
        published = published_models.publish(saved_model, where, note)
    crown(client, name, version, published.path, back=back)
    return Promotion(version, champion, published.path, published.unchanged)


def _parent_place(version: Any) -> str:
    """Returns the folder or prefix below which a version was published; empty if it was not."""
    place = (version.tags.get(SERVED_AT) or version.tags.get(PUBLISHED_AT, "")) if version else ""
    return str(place).rstrip("/").rpartition("/")[0]


def _download(client: Any, version: Any, folder: Path) -> Path:
    """Downloads a version's SavedModel, returns its folder; raises `InputError` if it is not the registered model."""
    place = client.get_model_version_download_uri(version.name, version.version)
    download = mlflow_runs.library().artifacts.download_artifacts
    download(artifact_uri=place, dst_path=str(folder), tracking_uri=client.tracking_uri)
    graphs = sorted(folder.rglob(model_directory.MODEL_FILE))
    if not graphs:
        raise InputError(
            f"version {version.version} of {version.name} has no {model_directory.MODEL_FILE} in MLflow; train it again"
        )
    registered = version.tags.get(FINGERPRINT)
    if registered and model_directory.model_fingerprint(graphs[0].parent) != registered:
        raise InputError(
            f"the files of version {version.version} of {version.name} in MLflow are not those that were registered; "
            "restore them, or train again"
        )
    return graphs[0].parent
