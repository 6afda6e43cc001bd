"""TFX's package of its own code, made once per process instead of once per step.

For every step that uses Beam, TFX copies its code and runs setuptools in a process, over a second of a core, in case
Beam's workers are on other machines. In tests they are not.
"""

from __future__ import annotations

import functools
import sys


def share() -> None:
    """Makes this process, if it has imported TFX, pack its code once."""
    utilities = sys.modules.get("tfx.utils.dependency_utils")
    if utilities and not hasattr(utilities.build_ephemeral_package, "cache_info"):
        utilities.build_ephemeral_package = functools.cache(utilities.build_ephemeral_package)
