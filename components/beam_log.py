"""What Beam logs on stderr."""

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def errors_raised_only() -> Iterator[None]:
    """Keeps Beam's log off stderr: the errors in it are raised too, so they would be shown twice.

    The level is put back at the end, because one process may run several steps whose logs are kept.
    """
    logger = logging.getLogger("apache_beam")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
