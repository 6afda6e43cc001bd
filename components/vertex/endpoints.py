"""The model registry and the endpoints of Vertex AI: how they are named, read and changed."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from components.vertex.api import Api
from components.vertex.options import Endpoint, Machine, read_machine
from marco_model import errors

MANAGED = "marco-pipeline"
FINGERPRINT, CONTAINER, RUN = "marco-fingerprint", "marco-container", "marco-run"
"""Labels of a model's version: the starts of the SHA-256 of its files and of what serves them, and its MLflow run."""

SERVING, PREVIOUS, WITHDRAWN = "marco-serving", "marco-previous", "marco-withdrawn"
"""Labels of an endpoint: the deployed model that is proven, the version before it, and `VERSION-ID`, the version that a
rollback took back and the deployed model that serves instead."""

DEFAULT, SERVED = "default", "served-"
"""Aliases of a model's version: the one promoted last; with the version's number, one that was ever promoted."""

CHECK = "-check"
"""Suffix of the name of the private endpoint on which a version is checked first."""


def label(text: str) -> str:
    """Returns `text` as a label's value: up to 63 small letters, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def identity(name: str) -> str:
    """Returns a resource's id for a display name, always the same, so that a second creation is refused.

    Vertex AI accepts up to 63 small letters, digits and `-`, with a letter first and no `-` last.
    """
    plain = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if plain == name and plain[:1].isalpha() and len(plain) <= 63:
        return plain
    return f"m-{plain[:40].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".replace("--", "-")


def deployed_id(version: str, etag: str) -> str:
    """Returns the id under which a version is deployed on an endpoint as it is now: ten digits.

    A repeated request is refused; the id changes with the endpoint, so none is reused.
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

    @property
    def name(self) -> str:
        """The resource name that means this version alone."""
        return f"{self.model}@{self.number}"

    @property
    def served(self) -> bool:
        """Whether it ever had all of an endpoint's traffic and answered as it should."""
        return f"{SERVED}{self.number}" in self.aliases


def find_model(api: Api, name: str) -> str | None:
    """Returns the resource name of the model of a display name, or None; raises `InputError` if there are several."""
    model = _find(api, "Model", name)
    return model and f"{api.place.parent}/models/{last(model.name)}"


def _find(api: Api, kind: str, name: str) -> Any | None:
    """Returns the model or endpoint of a display name, or None; raises `InputError` if there are several."""
    kinds = f"{kind.lower()}s"
    request = {"parent": api.place.parent, "filter": f'display_name="{name}"'}
    entries = [entry for entry in api.list_all(kind, f"list_{kinds}", request, kinds) if entry.display_name == name]
    if len(entries) > 1:
        names = ", ".join(last(entry.name) for entry in entries)
        raise errors.InputError(
            f"several {kinds} of {api.place.project} are called {name!r} ({names}); rename all but one"
        )
    return entries[0] if entries else None


def list_versions(api: Api, model: str) -> list[Version]:
    """Returns the versions of a model, the oldest first."""
    versions = [
        Version(
            model=model,
            number=message.version_id,
            fingerprint=message.labels.get(FINGERPRINT, ""),
            container=message.labels.get(CONTAINER, ""),
            run=message.labels.get(RUN, ""),
            uri=message.artifact_uri,
            aliases=tuple(message.version_aliases),
        )
        for message in api.list_all("Model", "list_model_versions", {"name": model}, "models")
    ]
    return sorted(versions, key=lambda version: int(version.number))


def ensure_version(api: Api, options: Endpoint, model: str, release: Release) -> Version:
    """Returns the version of the model `model`, a display name, that `release` is; uploads it if it is missing.

    A version is the same files at the same place in the same container. Place and container of a version never change:
    a later deployment reads the files from the bucket again.
    """
    container: dict[str, Any] = {"image_uri": options.container}
    if options.server == "marco":
        # Routes are left to Vertex AI, which passes them to the container as AIP_PREDICT_ROUTE and AIP_HEALTH_ROUTE.
        container |= {"command": ["marco", "serve"], "ports": [{"container_port": 8080}]}
    # Hashed, since the API does not promise to return a container as it was sent.
    container_mark = hashlib.sha256(json.dumps(container, sort_keys=True).encode()).hexdigest()[:32]
    labels = {FINGERPRINT: label(release.fingerprint[:32]), CONTAINER: container_mark, "managed-by": MANAGED}
    if release.run:
        labels[RUN] = label(release.run)
    sought = (labels[FINGERPRINT], container_mark, release.uri.rstrip("/"))
    place = f"{api.place.parent}/models/{identity(model)}"
    parent: str | None = None

    def look() -> Version | None:
        nonlocal parent
        parent = find_model(api, model)
        known = list_versions(api, parent) if parent else []
        same = (entry for entry in known if (entry.fingerprint, entry.container, entry.uri.rstrip("/")) == sought)
        # An upload whose answer was lost and that no list showed yet may have been requested twice.
        return next(same, None)

    def act() -> Any:
        body = {
            "display_name": model,
            "artifact_uri": release.uri,
            "container_spec": container,
            "labels": labels,
            "version_description": f"{release.uri} sha256 {release.fingerprint} in {options.container}",
        }
        request: dict[str, Any] = {"parent": api.place.parent, "model": body}
        request |= {"parent_model": parent} if parent else {"model_id": last(place)}
        api.show(f"Uploading {release.uri} as a {'version' if parent else 'first version'} of {model}")
        return api.act("Model", "upload_model", request)

    return api.ensure(look, act, lambda: parent or place)


def make_default(api: Api, version: Version) -> None:
    """Makes a version the model's default, which batch predictions use, and records that it served."""
    # An alias is of one version only, so each has its own.
    aliases = [DEFAULT, f"{SERVED}{version.number}"]

    def look() -> bool | None:
        known = next(entry.aliases for entry in list_versions(api, version.model) if entry.number == version.number)
        return True if set(aliases) <= set(known) else None

    request = {"name": version.name, "version_aliases": aliases}
    api.ensure(look, lambda: api.act("Model", "merge_version_aliases", request))


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A deployed model: its id on the endpoint, parent model's id, version, per cent of the traffic, and since when."""

    id: str
    model: str
    version: str
    share: int
    created: str
    machine: Machine = dataclasses.field(default_factory=Machine)


@dataclasses.dataclass(frozen=True)
class State:
    """An endpoint as it was read; a change must send the current `etag`."""

    name: str
    display_name: str
    etag: str
    labels: dict[str, str]
    deployed: tuple[Deployed, ...]

    @property
    def serving(self) -> Deployed | None:
        """The proven model: the one that the label names, else the one with most traffic; None if none has any."""
        if labelled := self.by_id(self.labels.get(SERVING, "")):
            return labelled
        most = max(self.deployed, key=lambda deployment: (deployment.share, deployment.created), default=None)
        return most if most and most.share else None

    @property
    def canary(self) -> Deployed | None:
        """The model on trial beside the proven one: the newest that has traffic, or that is not left from before."""
        others = [
            deployment
            for deployment in self.deployed
            if deployment != self.serving and (deployment.share or not self._left(deployment))
        ]
        return max(others, key=lambda deployment: (deployment.share > 0, deployment.created), default=None)

    def _left(self, deployment: Deployed) -> bool:
        """Whether a model without traffic is the way back, or the proven version on the machine that it had before."""
        serving = self.serving
        if serving and (deployment.model, deployment.version) == (serving.model, serving.version):
            return deployment.created < serving.created
        return deployment.version == self.labels.get(PREVIOUS)

    @property
    def withdrawn(self) -> str | None:
        """The version that a rollback replaced with the one that serves now, or None."""
        version, _, instead = self.labels.get(WITHDRAWN, "").partition("-")
        return version if self.serving and self.serving.id == instead else None

    def deployment_of(self, model: str, version: str, machine: Machine | None = None) -> Deployed | None:
        """Returns the deployment of a version (on `machine`), of several the one with most traffic."""
        key = (last(model), version)
        matches = (deployment for deployment in self.deployed if (deployment.model, deployment.version) == key)
        matches = (deployment for deployment in matches if machine in (None, deployment.machine))
        return max(matches, key=lambda deployment: deployment.share, default=None)

    def by_id(self, identity: str) -> Deployed | None:
        """Returns a deployed model by its id."""
        return next((deployment for deployment in self.deployed if deployment.id == identity), None)

    def split(self) -> dict[str, int]:
        """Returns the traffic by deployed model's id, those without any left out."""
        return {deployment.id: deployment.share for deployment in self.deployed if deployment.share}


def read_state(endpoint: Any) -> State:
    """Returns the state that a message `Endpoint` describes."""
    return State(
        name=endpoint.name,
        display_name=endpoint.display_name,
        etag=endpoint.etag,
        labels=dict(endpoint.labels),
        deployed=tuple(
            Deployed(
                id=message.id,
                model=last(message.model),
                version=message.model_version_id,
                share=int(endpoint.traffic_split.get(message.id, 0)),
                created=message.create_time.isoformat(timespec="seconds") if message.create_time else "",
                machine=read_machine(message),
            )
            for message in endpoint.deployed_models
        ),
    )


def check_free(state: State, version: str, deployment: Deployed | None) -> None:
    """Raises `InputError` if another deployment than `deployment`, that of `version`, is on trial."""
    busy = [other for other in state.deployed if other.share and other not in (state.serving, deployment)]
    if busy:
        traffic = ", ".join(
            f"version {other.version}{f' on {other.machine}' if other.version == version else ''} has {other.share} %"
            for other in busy
        )
        raise errors.InputError(
            f"on endpoint {state.display_name} {traffic}; marco deploy promote or marco deploy rollback it first"
        )


def find_endpoint(api: Api, name: str) -> State | None:
    """Returns the endpoint of a display name, or None; raises `InputError` if there are several."""
    endpoint = _find(api, "Endpoint", name)
    return endpoint and read_state(endpoint)


def ensure_endpoint(api: Api, name: str) -> State:
    """Returns the endpoint of a display name; creates it if it is missing."""
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


def deploy(api: Api, options: Endpoint, endpoint: str, version: Version) -> Deployed:
    """Deploys a version on the machine of `options` unless it is there: with all traffic if no other model has any.

    Takes minutes. Raises `components.vertex.api.Failed` if its container does not start.
    """
    seen: list[State] = []
    asked, machine = "", options.machine
    name = f"{last(version.model)}-{version.number} {version.fingerprint[:12]}"

    def find() -> Deployed | None:
        seen[:] = [look(api, endpoint)]
        # By the id, too: if the API describes a machine otherwise than requested, deploying would never end.
        return seen[0].deployment_of(version.model, version.number, machine) or seen[0].by_id(asked)

    def act() -> Any:
        nonlocal asked
        asked = deployed_id(version.name, seen[0].etag)
        deployed = {"id": asked, "model": version.name, "display_name": name, **machine.message()}
        request: dict[str, Any] = {"endpoint": endpoint, "deployed_model": deployed}
        if not seen[0].split():
            request["traffic_split"] = {"0": 100}
        api.show(f"Deploying version {version.number} to {seen[0].display_name} on {machine}")
        return api.act("Endpoint", "deploy_model", request)

    return api.ensure(find, act, lambda: endpoint)


def change(api: Api, endpoint: str, split: Mapping[str, int], labels: Mapping[str, str | None] | None = None) -> State:
    """Sets the traffic of deployed models by id and labels (None removes one) in one request.

    A concurrent change is not overwritten: the request carries the endpoint's etag.
    """
    seen: list[State] = []

    def merged_labels() -> dict[str, str]:
        merged = {**seen[0].labels, **(labels or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def find() -> State | None:
        seen[:] = [look(api, endpoint)]
        return seen[0] if seen[0].split() == dict(split) and seen[0].labels == merged_labels() else None

    def act() -> None:
        shares = ", ".join(
            f"version {deployment.version if (deployment := seen[0].by_id(key)) else key} {share} %"
            for key, share in split.items()
        )
        if seen[0].split() != dict(split):
            api.show(f"Traffic of {seen[0].display_name}: {shares}")
        body = {"name": endpoint, "etag": seen[0].etag, "traffic_split": dict(split), "labels": merged_labels()}
        api.act(
            "Endpoint", "update_endpoint", {"endpoint": body, "update_mask": {"paths": ["traffic_split", "labels"]}}
        )

    return api.ensure(find, act)


def undeploy(api: Api, endpoint: str, identity: str, *, last: bool = False) -> None:
    """Undeploys a model without traffic; `last`: or the only one, with all the traffic."""
    seen: list[State] = []

    def gone() -> bool | None:
        seen[:] = [look(api, endpoint)]
        return None if seen[0].by_id(identity) else True

    def act() -> Any:
        deployment = seen[0].by_id(identity)
        if deployment and deployment.share and not (last and len(seen[0].deployed) == 1):
            raise errors.InputError(
                f"version {deployment.version} still has {deployment.share} % of the traffic and is not taken away"
            )
        api.show(f"Undeploying version {deployment.version if deployment else identity} from {seen[0].display_name}")
        return api.act("Endpoint", "undeploy_model", {"endpoint": endpoint, "deployed_model_id": identity})

    api.ensure(gone, act, lambda: endpoint)
