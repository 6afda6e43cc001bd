"""Notices that this process is asked to end, as Kubernetes and batch systems do some seconds before they kill it."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Notice:
    """`signal` is the number of the signal that came, or 0."""

    signal = 0


@contextlib.contextmanager
def noticed() -> Iterator[Notice]:
    """Yields a notice that SIGTERM or SIGINT fills in; the second of them acts as it would have without this.

    Outside the main thread, where Python lets nobody handle signals, nothing is noticed.
    """
    notice = Notice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def receive(number: int, frame: FrameType | None) -> None:
        notice.signal = number
        log.info("Received %s: finishing this step and saving; once more ends at once", signal.Signals(number).name)
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, receive)
    try:
        yield notice
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
