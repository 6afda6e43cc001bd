"""Shares of counts, with how far chance may have moved them."""

from __future__ import annotations

from typing import Any

from components.gate.unpaired import wilson

LEVEL = 0.95


def share(found: int, count: int) -> dict[str, Any]:
    """Returns `found`, `count`, `share`, `low` and `high`; the last three are None where there is nothing to count."""
    if not count:
        return {"found": 0, "count": 0, "share": None, "low": None, "high": None}
    low, high = wilson(found, count, LEVEL)
    return {"found": int(found), "count": int(count), "share": found / count, "low": low, "high": high}
