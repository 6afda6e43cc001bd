"""How every benchmark answers: one line of JSON, last on stdout."""

from __future__ import annotations

import json


def report(ours: float, peer: float, unit: str) -> None:
    """Prints `{"ours": …, "peer": …, "ratio": …, "unit": …}`, the ratio being ours ÷ peer."""
    print(json.dumps({"ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 4), "unit": unit}))
