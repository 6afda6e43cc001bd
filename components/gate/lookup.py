"""Which model a run must beat, looked up before its first step."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from components.gate import champion
from components.gate.rules import NONE, REGISTRY
from components.mlflow_tracking import connection
from components.mlflow_tracking.names import CHAMPION, JUDGED_AGAINST, PUBLISHED_AT, SERVED_AT, SIGNATURE
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

        Raises `InputError` where MLflow cannot be reached: that is not the same as no champion.
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
        return champion.written(_place(version.tags), str(version.version)) if PUBLISHED_AT in version.tags else ""


def _champion(tracking: str, model_name: str) -> Any:
    if tracking.startswith("sqlite:///") and not Path(tracking.removeprefix("sqlite:///")).exists():
        return None
    client = connection.client(tracking)
    with connection.reaching(tracking):
        found = client.search_registered_models(f"name = '{model_name}'")
        holder = dict(found[0].aliases).get(CHAMPION) if found else None
        return client.get_model_version(model_name, holder) if holder else None


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
