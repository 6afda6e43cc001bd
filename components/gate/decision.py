"""The gate's decision as plain JSON, read without TFX.

`decision.json`: `blessed` (bool); `champion` (`model`: its URI, `version`: of the registry, empty outside of it; null
where there was none); `reasons` (sentences); `checks` (the fields of `components.gate.decide.Check`, in the order in
which they were made; empty where nothing was compared).
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from components.gate.decide import Decision
from marco_data.files import exists, read_bytes
from marco_model.errors import InputError

DECISION_FILE = "decision.json"


def read(decision_uri: str) -> dict[str, Any]:
    """Returns the content of `decision.json` in a decision artifact; raises `InputError` where there is none."""
    path = f"{decision_uri.rstrip('/')}/{DECISION_FILE}"
    if not exists(path):
        raise InputError(f"no decision at {decision_uri}: {DECISION_FILE} is missing; run the ChampionGate first")
    return dict(json.loads(read_bytes(path)))


def content(decision: Decision, champion: dict[str, str] | None) -> str:
    """Returns what is written."""
    told = {
        "blessed": decision.blessed,
        "champion": champion,
        "reasons": decision.reasons,
        "checks": [dataclasses.asdict(check) for check in decision.checks],
    }
    return json.dumps(told, indent=1) + "\n"
