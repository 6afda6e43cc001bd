"""Headless Chromium: what its pages share."""

from __future__ import annotations

import time
from typing import Any


def shares_storage(page: Any, other: Any) -> bool:
    """Returns whether two open pages of one context see each other's `localStorage`.

    On a busy machine, about one in a hundred pages of a newly started Chromium never shares its storage. The page
    itself cannot detect that. It does not happen to people, who open their pages more slowly.
    """
    page.evaluate("localStorage.setItem('probe', '1')")
    deadline = time.monotonic() + 3
    while not (seen := other.evaluate("localStorage.getItem('probe')")) and time.monotonic() < deadline:
        other.reload()
    page.evaluate("localStorage.removeItem('probe')")
    return bool(seen)
