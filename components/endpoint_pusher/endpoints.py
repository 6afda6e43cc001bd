"""Endpoints of Vertex AI: found or made, and the four changes that there are, each of which may be asked for twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.endpoint_pusher import machine, names, state
from components.endpoint_pusher.options import Endpoint
from components.endpoint_pusher.state import Deployed, State
from components.endpoint_pusher.versions import Version
from components.vertex.api import Api
from marco_model.errors import InputError


def find(api: Api, name: str) -> State | None:
    """Returns the endpoint of a display name, None where there is none; raises `InputError` where there are several."""
    request = {"parent": api.place.parent, "filter": f'display_name="{name}"'}
    found = [one for one in api.listed("Endpoint", "list_endpoints", request, "endpoints") if one.display_name == name]
    if len(found) > 1:
        told = ", ".join(names.last(one.name) for one in found)
        raise InputError(f"several endpoints of {api.place.project} are called {name!r} ({told}); rename all but one")
    return state.read(found[0]) if found else None


def ensure(api: Api, name: str) -> State:
    """Returns the endpoint of a display name, made where it is not there."""
    place = f"{api.place.parent}/endpoints/{names.identity(name)}"
    request = {
        "parent": api.place.parent,
        "endpoint": {"display_name": name, "labels": {"managed-by": names.MANAGED}},
        "endpoint_id": names.last(place),
    }
    return api.ensure(lambda: find(api, name), lambda: api.act("Endpoint", "create_endpoint", request), lambda: place)


def look(api: Api, endpoint: str) -> State:
    """Returns an endpoint, by its resource name, as it is now."""
    return state.read(api.read("Endpoint", "get_endpoint", {"name": endpoint}))


def deploy(api: Api, options: Endpoint, endpoint: str, version: Version, name: str) -> Deployed:
    """Deploys a version unless it is, on the machine of `options`: without traffic where any has some, else with all.

    Takes minutes. Raises `components.vertex.api.Failed` where its container does not come up.
    """
    seen: list[State] = []
    asked, wanted = "", machine.wanted(options)

    def there() -> Deployed | None:
        seen[:] = [look(api, endpoint)]
        # By the id, too: were a machine told in other words than it was asked for in, there would be no end of them.
        return seen[0].of(version.model, version.number, wanted) or seen[0].by_id(asked)

    def act() -> Any:
        nonlocal asked
        asked = names.deployed_id(version.name, seen[0].etag)
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
