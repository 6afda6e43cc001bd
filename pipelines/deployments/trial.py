"""Which version an endpoint has on trial."""

from __future__ import annotations

from components.endpoint_pusher import endpoints, versions
from components.endpoint_pusher.options import Endpoint
from components.endpoint_pusher.versions import Version
from components.vertex.api import Api
from marco_model.errors import InputError


def version(api: Api, options: Endpoint) -> Version:
    """Returns the version on trial or, where there is none, the one that serves; of it nothing is left to be done.

    Raises `InputError` where there is neither, or the registry does not know it any more.
    """
    state = endpoints.find(api, options.name)
    one = state and (state.canary or state.serving)
    if not one:
        raise InputError(f"endpoint {options.name} has no version on trial; marco deploy push one with --traffic 10")
    known = versions.listed(api, f"{api.place.parent}/models/{one.model}")
    found = [other for other in known if other.number == one.version]
    if not found:
        raise InputError(f"version {one.version} is not in the registry any more; marco deploy push another")
    return found[0]
