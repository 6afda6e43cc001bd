"""What people do with registered versions: look at them, make one the champion, go back to the one before.

A version is published again from MLflow's own copy, which is checked against the fingerprint it was registered with.
Servers take the newest number below a destination, so going back publishes the earlier model under a new one. The
folder comes first and the registry second: what is champion can be served, and a command that failed is repeated.
"""

from __future__ import annotations

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
from marco_model.errors import InputError
from marco_model.model_directory import MODEL_FILE, model_fingerprint
from marco_model.store import absolute

_KEPT = 100  # MLflow's tags hold 5,000 characters.


def succession(client: Any, name: str) -> list[str]:
    """Returns the numbers of the versions that were champion and not taken back, the present one last.

    An alias that was moved in MLflow itself counts: onto the champion before, as going back, else as a promotion.
    """
    model = client.get_registered_model(name)
    present = str(dict(model.aliases).get(CHAMPION, ""))
    known = [str(version) for version in json.loads(model.tags.get(CHAMPIONS, "[]"))]
    if not present or known[-1:] == [present]:
        return known
    return known[:-1] if known[-2:-1] == [present] else [*known, present]


def set_champion(client: Any, name: str, version: str, *, back: bool) -> list[str]:
    """Returns the succession with `version` as the present champion, and moves the alias to it.

    `back`: the present champion is taken back. A crash between the two writes leaves what `succession` puts right.
    """
    versions = succession(client, name)[: -1 if back else None]
    if versions[-1:] != [version]:
        versions.append(version)
    told = json.dumps(versions[-_KEPT:])
    if not back:
        client.set_registered_model_tag(name, CHAMPIONS, told)
    client.set_registered_model_alias(name, CHAMPION, version)
    if back:
        client.set_registered_model_tag(name, CHAMPIONS, told)
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

    `fingerprint`: hash of its files. `published_at`: where it serves from, which makes it champion; None if it was not
    blessed, which makes it challenger. `tags`: where it comes from, kept with those of the run that say so too.

    Raises:
        InputError: MLflow cannot be reached.
    """
    client = mlflow_runs.connect(run.tracking_uri)
    with mlflow_runs.reaching(run.tracking_uri):
        version = _registered(client, name, fingerprint)
        if version is None:
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            with _active(run):
                logged = _log_model(saved_model, classes)
                created = client.create_model_version(
                    name, logged.model_uri, run.run_id, tags={FINGERPRINT: fingerprint}, model_id=logged.model_id
                )
            version = str(created.version)
        given = {**_lineage(client, run), **(tags or {}), "blessed": str(published_at is not None).lower()}
        for tag, value in given.items():
            client.set_model_version_tag(name, version, tag, value)
        aliases = {alias: str(holder) for alias, holder in client.get_registered_model(name).aliases.items()}
        if published_at is not None:
            crown(client, name, version, published_at)
        elif aliases.get(CHAMPION) != version:  # It still serves, whatever a later, stricter judge says of it.
            client.set_registered_model_alias(name, CHALLENGER, version)
    return version


def _registered(client: Any, name: str, fingerprint: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}' and tags.`{FINGERPRINT}` = '{fingerprint}'")
    return str(max(int(version.version) for version in found)) if found else None


def _lineage(client: Any, run: Run) -> dict[str, str]:
    tags = client.get_run(run.run_id).data.tags
    return {name: tags[name] for name in (DATA, COMMIT, EVALUATION) if name in tags}


def crown(client: Any, name: str, version: str, place: str, *, back: bool = False) -> None:
    """Makes a version that is published at `place` the champion; `back`: in the place of one that is taken back."""
    if PUBLISHED_AT not in client.get_model_version(name, version).tags:
        client.set_model_version_tag(name, version, PUBLISHED_AT, place)
    client.set_model_version_tag(name, version, SERVED_AT, place)
    before = set_champion(client, name, version, back=back)[-2:-1]
    client.set_model_version_tag(name, version, PREVIOUS_CHAMPION, "".join(before))
    if str(dict(client.get_registered_model(name).aliases).get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)


def _log_model(saved_model: Path, classes: Sequence[str]) -> Any:
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image_bytes")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "class"),
                *(ColSpec(DataType.float, one) for one in classes),
                *(ColSpec(DataType.float, f"probability_{one}") for one in classes),
                ColSpec(DataType.string, "version"),
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
            pip_requirements=[f"{one}=={importlib.metadata.version(one)}" for one in ("mlflow", "tensorflow", "numpy")],
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
def _active(run: Run) -> Iterator[None]:
    """Makes `run` MLflow's active run, as its model logging wants it, and puts everything back."""
    import mlflow

    tracking_uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(run.tracking_uri)
    try:
        with mlflow.start_run(run_id=run.run_id):
            yield
    finally:
        mlflow.set_tracking_uri(tracking_uri)


class Listed(NamedTuple):
    """A version as `marco models list` shows it; what is not known is empty or None."""

    version: str
    aliases: tuple[str, ...]
    accuracy: float | None
    recall: float | None
    place: str
    created: datetime.datetime
    data: str
    commit: str


class Promoted(NamedTuple):
    """What was done: `version` serves from `place`, where it was `there` already or not; `before` was champion."""

    version: str
    before: str
    place: str
    there: bool


def store(tracking: str) -> str:
    """Returns MLflow's URI of a URI, or of a run's folder; raises `InputError` where a SQLite file is not there."""
    uri = f"sqlite:///{Path(tracking).resolve() / 'mlflow.db'}" if "://" not in tracking else tracking
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise InputError(f"there is no MLflow store at {uri}; give --tracking a run's folder or MLflow's URI")
    return uri


def list_versions(tracking: str, name: str, recall_class: str = "Crystals") -> list[Listed]:
    """Returns the versions of a registered model, newest first; raises `InputError` where there is no such model."""
    client = mlflow_runs.connect(tracking)
    with mlflow_runs.reaching(tracking):
        aliases = _model(client, tracking, name)
        found = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda one: -int(one.version))
        return [_listed(client, one, aliases, recall_class) for one in found]


def _listed(client: Any, version: Any, aliases: dict[str, str], recall_class: str) -> Listed:
    metrics = client.get_run(version.run_id).data.metrics if version.run_id else {}
    number = str(version.version)
    return Listed(
        version=number,
        aliases=tuple(sorted(alias for alias, holder in aliases.items() if holder == number)),
        accuracy=metrics.get("eval/accuracy"),
        recall=metrics.get(f"eval/recall/{recall_class}"),
        place=version.tags.get(SERVED_AT) or version.tags.get(PUBLISHED_AT, ""),
        created=datetime.datetime.fromtimestamp(version.creation_timestamp / 1000, datetime.timezone.utc),
        data=version.tags.get(DATA, ""),
        commit=version.tags.get(COMMIT, ""),
    )


def promote(tracking: str, name: str, version: str, destination: str | None = None) -> Promoted:
    """Publishes a version to `destination` unless it is the newest there, and makes it champion.

    Without a `destination` it goes where the champion is, or where it was itself, or an earlier champion. The champion
    until then is what `rollback` goes back to.

    Raises:
        InputError: there is no such version, its files are not those that were registered, or no place is known.
        ClusterError: the service of a bucket fails; nothing was published.
    """
    client = mlflow_runs.connect(tracking)
    with mlflow_runs.reaching(tracking):
        champion = _model(client, tracking, name).get(CHAMPION, "")
        return _serve(client, name, version, champion, destination, back=False)


def rollback(tracking: str, name: str, destination: str | None = None) -> Promoted:
    """Goes back to the version that was champion before the present one was promoted, which is taken back.

    Done again, it goes back one further, until there is none. A version that was champion twice is gone back to twice.
    Raises as `promote` does, and `InputError` where there is no champion or none before it.
    """
    client = mlflow_runs.connect(tracking)
    with mlflow_runs.reaching(tracking):
        champion = _model(client, tracking, name).get(CHAMPION, "")
        if not champion:
            raise InputError(f"{name} has no champion to go back from; marco models promote VERSION makes one")
        before = succession(client, name)[-2:-1]
        if not before:
            raise InputError(
                f"version {champion} of {name} has no champion before it; marco models promote VERSION takes any other"
            )
        return _serve(client, name, before[0], champion, destination, back=True)


def _model(client: Any, tracking: str, name: str) -> dict[str, str]:
    """Returns the aliases of a registered model; raises `InputError` where it does not exist."""
    found = client.search_registered_models(f"name = '{name}'")
    if not found:
        known = ", ".join(sorted(one.name for one in client.search_registered_models())) or "none"
        raise InputError(f"there is no registered model {name!r} in {tracking}; it has {known}")
    return {alias: str(holder) for alias, holder in client.get_registered_model(name).aliases.items()}


def _serve(client: Any, name: str, version: str, champion: str, destination: str | None, *, back: bool) -> Promoted:
    known = {str(one.version): one for one in client.search_model_versions(f"name = '{name}'")}
    if version not in known:
        numbers = ", ".join(sorted(known, key=int))
        raise InputError(f"{name} has no version {version}; it has {numbers}")
    places = (_beside(known.get(one)) for one in (champion, version, *reversed(succession(client, name))))
    where = absolute(destination) if destination else next(filter(None, places), "")
    if not where:
        raise InputError(f"it is not known where {name} is published; give --destination, a folder or gs:// URI")
    with tempfile.TemporaryDirectory(prefix="marco-version-") as folder:
        saved_model = _files(client, known[version], Path(folder))
        note = {"model": known[version].source, "mlflow_run_id": known[version].run_id, "registered_version": version}
        published = published_models.publish(saved_model, where, note)
    crown(client, name, version, published.path, back=back)
    return Promoted(version, champion, published.path, published.unchanged)


def _beside(version: Any) -> str:
    """Returns the folder or prefix below which a version was published, empty where it was not."""
    place = (version.tags.get(SERVED_AT) or version.tags.get(PUBLISHED_AT, "")) if version else ""
    return str(place).rstrip("/").rpartition("/")[0]


def _files(client: Any, version: Any, folder: Path) -> Path:
    """Downloads a version's SavedModel; raises `InputError` where it is not what was registered."""
    import mlflow

    place = client.get_model_version_download_uri(version.name, version.version)
    store = client.tracking_uri
    mlflow.artifacts.download_artifacts(artifact_uri=place, dst_path=str(folder), tracking_uri=store)
    found = sorted(folder.rglob(MODEL_FILE))
    if not found:
        raise InputError(f"version {version.version} of {version.name} has no {MODEL_FILE} in MLflow; train it again")
    registered = version.tags.get(FINGERPRINT)
    if registered and model_fingerprint(found[0].parent) != registered:
        raise InputError(
            f"the files of version {version.version} of {version.name} in MLflow are not those that were registered; "
            "restore them, or train again"
        )
    return found[0].parent
