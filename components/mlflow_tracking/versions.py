"""What people do with registered versions: look at them, make one the champion, go back to the one before.

A version is published again from MLflow's own copy, which is checked against the fingerprint it was registered with.
Servers take the newest number below a destination, so going back publishes the earlier model under a new one. The
folder comes first and the registry second: what is champion can be served, and a command that failed is repeated.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from components.mlflow_tracking import champions, connection
from components.mlflow_tracking.names import (
    CHAMPION,
    COMMIT,
    DATA,
    FINGERPRINT,
    PUBLISHED_AT,
    SERVED_AT,
)
from components.mlflow_tracking.registry import crown
from components.pusher import storage
from components.pusher.names import MODEL_FILE
from marco_data.files import absolute
from marco_model.errors import InputError


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


def listed(tracking: str, name: str, recall_class: str = "Crystals") -> list[Listed]:
    """Returns the versions of a registered model, newest first; raises `InputError` where there is no such model."""
    client = connection.client(tracking)
    with connection.reaching(tracking):
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
    client = connection.client(tracking)
    with connection.reaching(tracking):
        champion = _model(client, tracking, name).get(CHAMPION, "")
        return _serve(client, name, version, champion, destination, back=False)


def rollback(tracking: str, name: str, destination: str | None = None) -> Promoted:
    """Goes back to the version that was champion before the present one was promoted, which is taken back.

    Done again, it goes back one further, until there is none. A version that was champion twice is gone back to twice.
    Raises as `promote` does, and `InputError` where there is no champion or none before it.
    """
    client = connection.client(tracking)
    with connection.reaching(tracking):
        champion = _model(client, tracking, name).get(CHAMPION, "")
        if not champion:
            raise InputError(f"{name} has no champion to go back from; marco models promote VERSION makes one")
        before = champions.succession(client, name)[-2:-1]
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
    places = (_beside(known.get(one)) for one in (champion, version, *reversed(champions.succession(client, name))))
    where = absolute(destination) if destination else next(filter(None, places), "")
    if not where:
        raise InputError(f"it is not known where {name} is published; give --destination, a folder or gs:// URI")
    with tempfile.TemporaryDirectory(prefix="marco-version-") as folder:
        saved_model = _files(client, known[version], Path(folder))
        note = {"model": known[version].source, "mlflow_run_id": known[version].run_id, "registered_version": version}
        published = storage.publish(saved_model, where, note)
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
    if registered and storage.fingerprint(found[0].parent) != registered:
        raise InputError(
            f"the files of version {version.version} of {version.name} in MLflow are not those that were registered; "
            "restore them, or train again"
        )
    return found[0].parent
