"""What the step before the first finds out, and the gate and the Pusher are told."""

from __future__ import annotations

import dataclasses

from tfx.orchestration.data_types import RuntimeParameter


@dataclasses.dataclass(frozen=True)
class Judging:
    """The model to beat (`components.gate.champion.written`, empty for none) and the run's signature.

    Each is a string or a parameter that a step of the run gives.
    """

    champion: str | RuntimeParameter = ""
    signature: str | RuntimeParameter = ""
