"""Which model a run must beat, looked up before its first step, and again when the gate runs."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from components.gate import champion
from components.gate.rules import NONE, REGISTRY
from components.mlflow_tracking import connection
from components.mlflow_tracking.names import (
    CHAMPION,
    FINGERPRINT,
    JUDGED_AGAINST,
    PUBLISHED_AT,
    SERVED_AT,
    SIGNATURE,
)
from components.pusher.names import MODEL_FILE
from marco_data.files import exists
from marco_model.errors import ClusterError, InputError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Lookup:
    """What a run is told of the champion.

    `champion`: `registry`, `none`, or a model's folder or URI. `tracking`: MLflow's URI; `model_name`: the registered
    model whose alias `champion` counts. `settings`: see `components.gate.signature`.
    """

    champion: str
    tracking: str
    model_name: str
    settings: str

    @classmethod
    def read(cls, text: str) -> Lookup:
        """Returns what `written` wrote."""
        return cls(**json.loads(text))

    def written(self) -> str:
        """Returns it as JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def to_beat(self, signature: str) -> str:
        """Returns the parameter `champion` of a run with this signature: `champion.written`, or empty for none.

        The run that made the champion is judged against the model that it was judged against then.

        Raises `InputError` where MLflow cannot be reached, or where it is not known where the champion lies: neither
        is the same as no champion.
        """
        if self.champion == NONE:
            return ""
        if self.champion != REGISTRY:
            return champion.written(self.champion)
        version = _champion(self.tracking, self.model_name)
        if version is None:
            return ""
        if version.tags.get(SIGNATURE) == signature:
            return str(version.tags.get(JUDGED_AGAINST, ""))
        return _written(version)


def present(tracking: str, model_name: str, fingerprint: str) -> str:
    """Returns the champion of now as `Lookup.to_beat` does; empty for none, and where it has this `fingerprint`.

    A run with the champion's signature whose model is another one after all, since code has changed or a lost cache
    made it train anew, must beat that champion.
    """
    version = _champion(tracking, model_name)
    return "" if version is None or version.tags.get(FINGERPRINT) == fingerprint else _written(version)


def _champion(tracking: str, model_name: str) -> Any:
    if tracking.startswith("sqlite:///") and not Path(tracking.removeprefix("sqlite:///")).exists():
        return None
    client = connection.client(tracking)
    with connection.reaching(tracking):
        found = client.search_registered_models(f"name = '{model_name}'")
        holder = dict(found[0].aliases).get(CHAMPION) if found else None
        return client.get_model_version(model_name, holder) if holder else None


def _written(version: Any) -> str:
    number = str(version.version)
    if PUBLISHED_AT not in version.tags:
        raise InputError(
            f"version {number} of {version.name} is champion in MLflow but was never published, so there is nothing to "
            f"compare with; publish it (marco models promote {number}), or take the alias away from it"
        )
    return champion.written(_place(version.tags), number)


def _place(tags: dict[str, str]) -> str:
    """Returns where the champion was first published, which stays the same when it is published anew.

    Where that version was removed since, it is where the champion was published last.
    """
    first = str(tags[PUBLISHED_AT])
    try:
        return first if exists(f"{first}/{MODEL_FILE}") else str(tags.get(SERVED_AT, first))
    except (InputError, ClusterError) as error:  # The gate says so, where it matters.
        log.warning("Cannot look at the champion, %s: %s", first, error)
        return first
