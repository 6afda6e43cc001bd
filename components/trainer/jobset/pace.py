"""How long a training on several nodes waits for what."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Pace:
    """All in seconds."""

    # Between two looks at the JobSet.
    look: float = 3.0
    # Until the user is told of a pod that has not started.
    waiting: float = 60.0
    # That an API which does not answer is borne.
    unreachable: float = 600.0
    # Between two changes of the heartbeat, and without one, after which replicas end. That long the GPUs of a step that
    # was killed stay taken; yet a network file system may show an old state for a while (NFS: a minute).
    beat: float = 15.0
    silence: int = 120
    # For a replica that is told to end, to finish its step and save.
    grace: int = 120
    # For a deleted JobSet to be gone; where the step itself is told to end, its own pod has little longer.
    gone: float = 180.0
    gone_at_signal: float = 15.0
    # Until Kubernetes takes away a JobSet that has ended and that nobody deleted.
    kept: int = 600


PACE = Pace()
