"""What tells one training from another before it runs, the same on every runner.

A run that is repeated over unchanged data must be judged against the same model as the first time, although it has
made the champion itself meanwhile: only then does nothing change and every step is reused. So each version in the
registry keeps its run's signature and the champion that it was judged against (`components.gate.lookup`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(told: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of settings, which are JSON's kinds, whatever their order."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def signature(settings: str, fingerprint: str, initial: str, steps: str) -> str:
    """Returns a run's signature.

    `settings`: the `digest` of what defines the training and of where its steps are kept. `fingerprint`: of the data;
    `initial`: of the weights that training begins from; `steps`: those asked for, empty for the recipe's.
    """
    return digest({"settings": settings, "fingerprint": fingerprint, "initial": initial, "steps": steps})
