"""An endpoint as a table."""

from __future__ import annotations

from components.endpoint_pusher import names, versions
from components.endpoint_pusher.state import Deployed, State
from components.vertex.api import Api

COLUMNS = ("version", "traffic", "role", "deployed", "fingerprint", "model", "MLflow run", "machine")


def rows(state: State, known: dict[tuple[str, str], versions.Version]) -> list[tuple[str, ...]]:
    """Returns a row of `COLUMNS` for each deployed model, that with most traffic first.

    `known`: versions by the model's id and the version's number.
    """
    found: list[tuple[str, ...]] = []
    for one in sorted(state.deployed, key=lambda one: (-one.share, one.created)):
        version = known.get((one.model, one.version))
        told = (version.fingerprint[:12], version.uri, version.run) if version else ("", "", "")
        found.append((one.version, f"{one.share} %", _role(state, one), one.created, *told, str(one.machine)))
    return found


def _role(state: State, one: Deployed) -> str:
    if one == state.serving:
        return "serves"
    if one == state.canary:
        return "on trial"
    return "the way back" if one.version == state.labels.get(names.PREVIOUS) else ""


def show(api: Api, state: State) -> None:
    """Prints the endpoint's deployed models, with what the registry knows of their versions."""
    from rich.console import Console
    from rich.table import Table

    known = {
        (model, one.number): one
        for model in sorted({one.model for one in state.deployed})
        for one in versions.listed(api, f"{api.place.parent}/models/{model}")
    }
    drawn = Table(title=f"Endpoint {state.display_name} in {api.place.project}, {api.place.location}")
    for column in COLUMNS:
        drawn.add_column(column, overflow="fold")
    for row in rows(state, known):
        drawn.add_row(*row)
    Console(width=None if Console().is_terminal else 200).print(drawn)
