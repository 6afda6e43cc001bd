"""What Vertex AI tells a custom container by its environment.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from marco_model.errors import InputError


class VertexContainer(NamedTuple):
    """Port, routes and the model's URI on `gs://`; None each where Vertex AI does not tell it."""

    port: int | None = None
    predict_route: str | None = None
    health_route: str | None = None
    storage_uri: str | None = None


def vertex_container(environment: Mapping[str, str]) -> VertexContainer:
    """Reads the variables `AIP_…`; raises `InputError` where one makes no sense."""
    port = environment.get("AIP_HTTP_PORT") or None
    if port is not None and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise InputError(f"AIP_HTTP_PORT is {port!r}; expected a port from 1 to 65535")
    routes = []
    for name in ("AIP_PREDICT_ROUTE", "AIP_HEALTH_ROUTE"):
        route = environment.get(name) or None
        if route is not None and (not route.startswith("/") or set(route) & set("{}?# ")):
            raise InputError(f"{name} is {route!r}; expected a path such as /predict")
        routes.append(route)
    storage_uri = environment.get("AIP_STORAGE_URI") or None
    return VertexContainer(int(port) if port else None, routes[0], routes[1], storage_uri)
