"""What an endpoint is like: which deployed model is proven, which is on trial, where the way back leads."""

from __future__ import annotations

import dataclasses
from typing import Any

from components.endpoint_pusher import machine, names
from components.endpoint_pusher.machine import Machine
from marco_model.errors import InputError


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
        said = [one for one in self.deployed if one.id == self.labels.get(names.SERVING)]
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
        return one.version == self.labels.get(names.PREVIOUS)

    @property
    def withdrawn(self) -> str | None:
        """The version in whose place a rollback has put the one that serves now; None where none has."""
        version, _, instead = self.labels.get(names.WITHDRAWN, "").partition("-")
        return version if self.serving and self.serving.id == instead else None

    def of(self, model: str, version: str, machine: Machine | None = None) -> Deployed | None:
        """Returns the deployment of a version (on `machine`), the one with most traffic where there are several."""
        found = [one for one in self.deployed if one.version == version and one.model == names.last(model)]
        found = [one for one in found if machine in (None, one.machine)]
        return max(found, key=lambda one: one.share, default=None)

    def by_id(self, identity: str) -> Deployed | None:
        """Returns a deployed model by its id."""
        return next((one for one in self.deployed if one.id == identity), None)

    def split(self) -> dict[str, int]:
        """Returns the traffic by deployed model's id, those without any left out."""
        return {one.id: one.share for one in self.deployed if one.share}


def read(endpoint: Any) -> State:
    """Returns the state that a message `Endpoint` tells."""
    return State(
        name=endpoint.name,
        display_name=endpoint.display_name,
        etag=endpoint.etag,
        labels=dict(endpoint.labels),
        deployed=tuple(
            Deployed(
                id=one.id,
                model=names.last(one.model),
                version=one.model_version_id,
                share=int(endpoint.traffic_split.get(one.id, 0)),
                created=one.create_time.isoformat(timespec="seconds") if one.create_time else "",
                name=one.display_name,
                machine=machine.read(one),
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
