"""A model's versions in Vertex AI's registry: one parent model, a version for each published model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from components.endpoint_pusher import names
from components.endpoint_pusher.options import Endpoint
from components.vertex.api import Api
from marco_data.object_store import is_object
from marco_model.errors import InputError


@dataclasses.dataclass(frozen=True)
class Release:
    """A published model: its `gs://` folder, the SHA-256 of its files, the MLflow run that it comes from."""

    uri: str
    fingerprint: str
    run: str = ""


@dataclasses.dataclass(frozen=True)
class Version:
    """A version in the registry; `model` is its parent's resource name, `number` a count from 1, as text.

    `fingerprint` and `container` are what its labels say of its files and of what serves them.
    """

    model: str
    number: str
    fingerprint: str
    container: str
    run: str
    uri: str
    aliases: tuple[str, ...]
    created: str

    @property
    def name(self) -> str:
        """The resource name that means this version alone."""
        return f"{self.model}@{self.number}"

    @property
    def served(self) -> bool:
        """Whether it ever had all of an endpoint's traffic and answered as it should."""
        return f"{names.SERVED}{self.number}" in self.aliases


def find_model(api: Api, name: str) -> str | None:
    """Returns the resource name of the model of a display name, None where there is none.

    Raises `InputError` where there are several.
    """
    request = {"parent": api.place.parent, "filter": f'display_name="{name}"'}
    found = [one for one in api.listed("Model", "list_models", request, "models") if one.display_name == name]
    if len(found) > 1:
        told = ", ".join(names.last(one.name) for one in found)
        raise InputError(f"several models of {api.place.project} are called {name!r} ({told}); rename all but one")
    return f"{api.place.parent}/models/{names.last(found[0].name)}" if found else None


def listed(api: Api, model: str) -> list[Version]:
    """Returns the versions of a model, the oldest first."""
    found = api.listed("Model", "list_model_versions", {"name": model}, "models")
    return sorted((_version(model, one) for one in found), key=lambda one: int(one.number))


def ensure(api: Api, options: Endpoint, model: str, release: Release) -> Version:
    """Returns the version that `release` is of the model `model`, a display name; uploads it where it is not there.

    A version is the same files at the same place in the same container. Place and container are a version's for good,
    and where files have moved away they may be gone when it is deployed again.

    The files are not copied by us: Vertex AI takes them from the bucket. Raises `InputError` for a release that lies
    elsewhere.
    """
    if not is_object(release.uri):
        raise InputError(f"{release.uri} is not on gs://, where Vertex AI takes models from; set destination to gs://…")
    container, mark = _container(options), names.label(release.fingerprint[:32])
    sought = (mark, _mark(container), release.uri.rstrip("/"))
    place = f"{api.place.parent}/models/{names.identity(model)}"
    parent: list[str] = []

    def look() -> Version | None:
        parent[:] = [found] if (found := find_model(api, model)) else []
        if not parent:
            return None
        known = listed(api, parent[0])
        same = [one for one in known if (one.fingerprint, one.container, one.uri.rstrip("/")) == sought]
        # An upload whose answer was lost and which no list showed may have been asked for twice.
        return same[0] if same else None

    def act() -> Any:
        request: dict[str, Any] = {"parent": api.place.parent, "model": _body(model, release, container, mark)}
        request |= {"parent_model": parent[0]} if parent else {"model_id": names.last(place)}
        api.show(f"Uploading {release.uri} as a {'version' if parent else 'first version'} of {model}")
        return api.act("Model", "upload_model", request)

    return api.ensure(look, act, lambda: parent[0] if parent else place)


def make_default(api: Api, version: Version) -> None:
    """Makes a version the one that the model's name alone means, as in a batch prediction, and notes that it served."""
    # An alias is of one version only, so each has its own.
    aliases = [names.DEFAULT, f"{names.SERVED}{version.number}"]

    def look() -> bool | None:
        known = next(one.aliases for one in listed(api, version.model) if one.number == version.number)
        return True if set(aliases) <= set(known) else None

    request = {"name": version.name, "version_aliases": aliases}
    api.ensure(look, lambda: api.act("Model", "merge_version_aliases", request))


def _container(options: Endpoint) -> dict[str, Any]:
    container: dict[str, Any] = {"image_uri": options.container}
    if options.server == "marco":
        # Routes are left to Vertex AI, which tells them to the container by AIP_PREDICT_ROUTE and AIP_HEALTH_ROUTE.
        container |= {"command": ["marco", "serve"], "ports": [{"container_port": 8080}]}
    return container


def _mark(container: dict[str, Any]) -> str:
    """Returns what a label says of a container; Vertex AI's reference does not promise to return what was given."""
    return hashlib.sha256(json.dumps(container, sort_keys=True).encode()).hexdigest()[:32]


def _body(name: str, release: Release, container: dict[str, Any], mark: str) -> dict[str, Any]:
    labels = {names.FINGERPRINT: mark, names.CONTAINER: _mark(container), "managed-by": names.MANAGED}
    if release.run:
        labels[names.RUN] = names.label(release.run)
    return {
        "display_name": name,
        "artifact_uri": release.uri,
        "container_spec": container,
        "labels": labels,
        "version_description": f"{release.uri} sha256 {release.fingerprint} in {container['image_uri']}",
    }


def _version(model: str, one: Any) -> Version:
    return Version(
        model=model,
        number=one.version_id,
        fingerprint=one.labels.get(names.FINGERPRINT, ""),
        container=one.labels.get(names.CONTAINER, ""),
        run=one.labels.get(names.RUN, ""),
        uri=one.artifact_uri,
        aliases=tuple(one.version_aliases),
        created=one.version_create_time.isoformat(timespec="seconds") if one.version_create_time else "",
    )
