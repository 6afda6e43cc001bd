"""Speed and realism, always as a ratio against a peer measured in the same run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable


def report(ours: float, peer: float, unit: str) -> None:
    """Prints `{"ours": …, "peer": …, "ratio": …, "unit": …}`, the ratio being ours ÷ peer."""
    print(json.dumps({"ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 4), "unit": unit}))


def seconds(work: Callable[[], object]) -> float:
    """Returns how long `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
