"""What Beam's workers raise, as one line again."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from marco_model.errors import ClusterError, InputError


@contextlib.contextmanager
def expected_errors() -> Iterator[None]:
    """Raises again what a worker of Beam raised of the kinds that are one line.

    A runner gives back its text alone, or with the name of the step.
    """
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        for kind in (InputError, ClusterError):
            if told := re.search(rf"^(?:\w+\.)*{kind.__name__}: (.+?)(?: \[while running .*)?$", text, re.MULTILINE):
                raise kind(told[1]) from error
        raise
