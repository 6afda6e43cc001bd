"""Which versions of a registered model were champion, in their order: what going back goes by."""

from __future__ import annotations

import json
from typing import Any

from components.mlflow_tracking.names import CHAMPION, CHAMPIONS

_KEPT = 100  # MLflow's tags hold 5,000 characters.


def succession(client: Any, name: str) -> list[str]:
    """Returns the numbers of the versions that were champion and not taken back, the present one last.

    An alias that was moved in MLflow itself counts: onto the champion before, as going back, else as a promotion.
    """
    model = client.get_registered_model(name)
    present = str(dict(model.aliases).get(CHAMPION, ""))
    known = [str(version) for version in json.loads(model.tags.get(CHAMPIONS, "[]"))]
    if not present or known[-1:] == [present]:
        return known
    return known[:-1] if known[-2:-1] == [present] else [*known, present]


def crowned(client: Any, name: str, version: str, *, back: bool) -> list[str]:
    """Returns the succession with `version` as the present champion, and moves the alias to it.

    `back`: the present champion is taken back. A crash between the two writes leaves what `succession` puts right.
    """
    versions = succession(client, name)[: -1 if back else None]
    if versions[-1:] != [version]:
        versions.append(version)
    told = json.dumps(versions[-_KEPT:])
    if not back:
        client.set_registered_model_tag(name, CHAMPIONS, told)
    client.set_registered_model_alias(name, CHAMPION, version)
    if back:
        client.set_registered_model_tag(name, CHAMPIONS, told)
    return versions
