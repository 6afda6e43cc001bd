"""Endpoints of Vertex AI: found or made, and the four changes that there are, each of which may be asked for twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from components.vertex import options
from components.vertex.api import Api
from components.vertex.options import Endpoint, Machine, wanted_machine
from marco_model.errors import InputError
from marco_model.store import is_object

MANAGED = "marco-pipeline"
FINGERPRINT, CONTAINER, RUN = "marco-fingerprint", "marco-container", "marco-run"
"""Labels of a model's version: the starts of the SHA-256 of its files and of what serves them, and its MLflow run."""

SERVING, PREVIOUS, WITHDRAWN = "marco-serving", "marco-previous", "marco-withdrawn"
"""Labels of an endpoint: the deployed model that is proven, the version before it, and `VERSION-ID`, the version that a
rollback took back and the deployed model that serves instead."""

DEFAULT, SERVED = "default", "served-"
"""Aliases of a model's version: the one promoted last; with the version's number, one that was ever promoted."""

CHECK = "-check"
"""What the name of the endpoint ends in on which a version is checked before anybody else asks it."""


def label(text: str) -> str:
    """Returns `text` as a label's value: up to 63 small letters, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def identity(name: str) -> str:
    """Returns a resource's id for a display name, always the same: made twice, the second is refused.

    Vertex AI takes up to 63 small letters, digits and `-`, with a letter first and no `-` last.
    """
    plain = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if plain == name and plain[:1].isalpha() and len(plain) <= 63:
        return plain
    return f"m-{plain[:40].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".replace("--", "-")


def deployed_id(version: str, etag: str) -> str:
    """Returns the id under which a version is deployed on an endpoint as it is now: ten digits.

    Asked for twice, the second is refused; after the endpoint has changed the id is another, so none is used again.
    """
    number = int(hashlib.sha256(f"{version} {etag}".encode()).hexdigest(), 16)
    return str(10**9 + number % (9 * 10**9))


def last(resource: str) -> str:
    """Returns the last part of a resource's name, without a version: projects come back as numbers."""
    return resource.rsplit("/", 1)[-1].partition("@")[0]


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
        return f"{SERVED}{self.number}" in self.aliases


def find_model(api: Api, name: str) -> str | None:
    """Returns the resource name of the model of a display name, None where there is none.

    Raises `InputError` where there are several.
    """
    request = {"parent": api.place.parent, "filter": f'display_name="{name}"'}
    found = [one for one in api.listed("Model", "list_models", request, "models") if one.display_name == name]
    if len(found) > 1:
        told = ", ".join(last(one.name) for one in found)
        raise InputError(f"several models of {api.place.project} are called {name!r} ({told}); rename all but one")
    return f"{api.place.parent}/models/{last(found[0].name)}" if found else None


def list_versions(api: Api, model: str) -> list[Version]:
    """Returns the versions of a model, the oldest first."""
    found = api.listed("Model", "list_model_versions", {"name": model}, "models")
    return sorted((_version(model, one) for one in found), key=lambda one: int(one.number))


def ensure_version(api: Api, options: Endpoint, model: str, release: Release) -> Version:
    """Returns the version that `release` is of the model `model`, a display name; uploads it where it is not there.

    A version is the same files at the same place in the same container. Place and container are a version's for good,
    and where files have moved away they may be gone when it is deployed again.

    The files are not copied by us: Vertex AI takes them from the bucket. Raises `InputError` for a release that lies
    elsewhere.
    """
    if not is_object(release.uri):
        raise InputError(f"{release.uri} is not on gs://, where Vertex AI takes models from; set destination to gs://…")
    container, mark = _container(options), label(release.fingerprint[:32])
    sought = (mark, _mark(container), release.uri.rstrip("/"))
    place = f"{api.place.parent}/models/{identity(model)}"
    parent: list[str] = []

    def look() -> Version | None:
        parent[:] = [found] if (found := find_model(api, model)) else []
        if not parent:
            return None
        known = list_versions(api, parent[0])
        same = [one for one in known if (one.fingerprint, one.container, one.uri.rstrip("/")) == sought]
        # An upload whose answer was lost and which no list showed may have been asked for twice.
        return same[0] if same else None

    def act() -> Any:
        request: dict[str, Any] = {"parent": api.place.parent, "model": _body(model, release, container, mark)}
        request |= {"parent_model": parent[0]} if parent else {"model_id": last(place)}
        api.show(f"Uploading {release.uri} as a {'version' if parent else 'first version'} of {model}")
        return api.act("Model", "upload_model", request)

    return api.ensure(look, act, lambda: parent[0] if parent else place)


def make_default(api: Api, version: Version) -> None:
    """Makes a version the one that the model's name alone means, as in a batch prediction, and notes that it served."""
    # An alias is of one version only, so each has its own.
    aliases = [DEFAULT, f"{SERVED}{version.number}"]

    def look() -> bool | None:
        known = next(one.aliases for one in list_versions(api, version.model) if one.number == version.number)
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
    labels = {FINGERPRINT: mark, CONTAINER: _mark(container), "managed-by": MANAGED}
    if release.run:
        labels[RUN] = label(release.run)
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
        fingerprint=one.labels.get(FINGERPRINT, ""),
        container=one.labels.get(CONTAINER, ""),
        run=one.labels.get(RUN, ""),
        uri=one.artifact_uri,
        aliases=tuple(one.version_aliases),
        created=one.version_create_time.isoformat(timespec="seconds") if one.version_create_time else "",
    )


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A deployed model: its id on the endpoint, parent model's id, version, per cent of the traffic, and since when."""

    id: str
    model: str
    version: str
    share: int
    created: str
    name: str
    machine: Machine = dataclasses.field(default_factory=Machine)


@dataclasses.dataclass(frozen=True)
class State:
    """An endpoint as it was read; `etag` is what a change has to have seen."""

    name: str
    display_name: str
    etag: str
    labels: dict[str, str]
    deployed: tuple[Deployed, ...]

    @property
    def serving(self) -> Deployed | None:
        """The proven model: the one that the label says, else that with most traffic; None where none has any."""
        said = [one for one in self.deployed if one.id == self.labels.get(SERVING)]
        if said:
            return said[0]
        most = max(self.deployed, key=lambda one: (one.share, one.created), default=None)
        return most if most and most.share else None

    @property
    def canary(self) -> Deployed | None:
        """The model on trial beside the proven one: the newest that has traffic, or that is not left from before."""
        others = [one for one in self.deployed if one != self.serving and (one.share or not self._left(one))]
        return max(others, key=lambda one: (one.share > 0, one.created), default=None)

    def _left(self, one: Deployed) -> bool:
        """Whether a model without traffic is the way back, or the proven version on the machine that it had before."""
        serving = self.serving
        if serving and (one.model, one.version) == (serving.model, serving.version):
            return one.created < serving.created
        return one.version == self.labels.get(PREVIOUS)

    @property
    def withdrawn(self) -> str | None:
        """The version in whose place a rollback has put the one that serves now; None where none has."""
        version, _, instead = self.labels.get(WITHDRAWN, "").partition("-")
        return version if self.serving and self.serving.id == instead else None

    def of(self, model: str, version: str, machine: Machine | None = None) -> Deployed | None:
        """Returns the deployment of a version (on `machine`), the one with most traffic where there are several."""
        found = [one for one in self.deployed if one.version == version and one.model == last(model)]
        found = [one for one in found if machine in (None, one.machine)]
        return max(found, key=lambda one: one.share, default=None)

    def by_id(self, identity: str) -> Deployed | None:
        """Returns a deployed model by its id."""
        return next((one for one in self.deployed if one.id == identity), None)

    def split(self) -> dict[str, int]:
        """Returns the traffic by deployed model's id, those without any left out."""
        return {one.id: one.share for one in self.deployed if one.share}


def read_state(endpoint: Any) -> State:
    """Returns the state that a message `Endpoint` tells."""
    return State(
        name=endpoint.name,
        display_name=endpoint.display_name,
        etag=endpoint.etag,
        labels=dict(endpoint.labels),
        deployed=tuple(
            Deployed(
                id=one.id,
                model=last(one.model),
                version=one.model_version_id,
                share=int(endpoint.traffic_split.get(one.id, 0)),
                created=one.create_time.isoformat(timespec="seconds") if one.create_time else "",
                name=one.display_name,
                machine=options.read_machine(one),
            )
            for one in endpoint.deployed_models
        ),
    )


def check_free(state: State, version: str, there: Deployed | None) -> None:
    """Raises `InputError` where another than `there`, the deployment of `version` that is meant, is on trial."""
    busy = [one for one in state.deployed if one.share and one not in (state.serving, there)]
    if busy:
        told = ", ".join(
            f"version {one.version}{f' on {one.machine}' if one.version == version else ''} has {one.share} %"
            for one in busy
        )
        raise InputError(
            f"on endpoint {state.display_name} {told}; marco deploy promote or marco deploy rollback it first"
        )


def find_endpoint(api: Api, name: str) -> State | None:
    """Returns the endpoint of a display name, None where there is none; raises `InputError` where there are several."""
    request = {"parent": api.place.parent, "filter": f'display_name="{name}"'}
    found = [one for one in api.listed("Endpoint", "list_endpoints", request, "endpoints") if one.display_name == name]
    if len(found) > 1:
        told = ", ".join(last(one.name) for one in found)
        raise InputError(f"several endpoints of {api.place.project} are called {name!r} ({told}); rename all but one")
    return read_state(found[0]) if found else None


def ensure_endpoint(api: Api, name: str) -> State:
    """Returns the endpoint of a display name, made where it is not there."""
    place = f"{api.place.parent}/endpoints/{identity(name)}"
    request = {
        "parent": api.place.parent,
        "endpoint": {"display_name": name, "labels": {"managed-by": MANAGED}},
        "endpoint_id": last(place),
    }
    return api.ensure(
        lambda: find_endpoint(api, name), lambda: api.act("Endpoint", "create_endpoint", request), lambda: place
    )


def look(api: Api, endpoint: str) -> State:
    """Returns an endpoint, by its resource name, as it is now."""
    return read_state(api.read("Endpoint", "get_endpoint", {"name": endpoint}))


def deploy(api: Api, options: Endpoint, endpoint: str, version: Version, name: str) -> Deployed:
    """Deploys a version unless it is, on the machine of `options`: without traffic where any has some, else with all.

    Takes minutes. Raises `components.vertex.api.Failed` where its container does not come up.
    """
    seen: list[State] = []
    asked, wanted = "", wanted_machine(options)

    def there() -> Deployed | None:
        seen[:] = [look(api, endpoint)]
        # By the id, too: were a machine told in other words than it was asked for in, there would be no end of them.
        return seen[0].of(version.model, version.number, wanted) or seen[0].by_id(asked)

    def act() -> Any:
        nonlocal asked
        asked = deployed_id(version.name, seen[0].etag)
        deployed = {"id": asked, "model": version.name, "display_name": name, **wanted.message()}
        request: dict[str, Any] = {"endpoint": endpoint, "deployed_model": deployed}
        if not seen[0].split():
            request["traffic_split"] = {"0": 100}
        api.show(f"Deploying version {version.number} to {seen[0].display_name} on {wanted}")
        return api.act("Endpoint", "deploy_model", request)

    return api.ensure(there, act, lambda: endpoint)


def change(api: Api, endpoint: str, split: Mapping[str, int], labels: Mapping[str, str | None] | None = None) -> State:
    """Gives traffic to deployed models by id, and sets labels (None takes one away), all at once.

    Nobody's change in between is overwritten: the endpoint's etag goes with it.
    """
    seen: list[State] = []

    def wanted() -> dict[str, str]:
        merged = {**seen[0].labels, **(labels or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def there() -> State | None:
        seen[:] = [look(api, endpoint)]
        return seen[0] if seen[0].split() == dict(split) and seen[0].labels == wanted() else None

    def act() -> None:
        told = ", ".join(
            f"version {one.version if (one := seen[0].by_id(key)) else key} {share} %" for key, share in split.items()
        )
        if seen[0].split() != dict(split):
            api.show(f"Traffic of {seen[0].display_name}: {told}")
        body = {"name": endpoint, "etag": seen[0].etag, "traffic_split": dict(split), "labels": wanted()}
        api.act(
            "Endpoint", "update_endpoint", {"endpoint": body, "update_mask": {"paths": ["traffic_split", "labels"]}}
        )

    return api.ensure(there, act)


def undeploy(api: Api, endpoint: str, identity: str, *, last: bool = False) -> None:
    """Takes a deployed model away, one that has no traffic; `last`: or that has all of it and is the only one."""
    seen: list[State] = []

    def gone() -> bool | None:
        seen[:] = [look(api, endpoint)]
        return None if seen[0].by_id(identity) else True

    def act() -> Any:
        one = seen[0].by_id(identity)
        if one and one.share and not (last and len(seen[0].deployed) == 1):
            raise InputError(f"version {one.version} still has {one.share} % of the traffic and is not taken away")
        api.show(f"Undeploying version {one.version if one else identity} from {seen[0].display_name}")
        return api.act("Endpoint", "undeploy_model", {"endpoint": endpoint, "deployed_model_id": identity})

    api.ensure(gone, act, lambda: endpoint)
