"""A file that the step keeps changing; replicas that see it rest end, since nobody follows or deletes them any more.

Each side has only its own clock: what is compared is the file's content with what it was a while ago.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import signal
import threading
import time
import uuid
from collections.abc import Iterator

log = logging.getLogger(__name__)

GRACE = 60.0
"""Seconds to save in after the signal; a process that waits for a lost one would else wait for ever."""


@contextlib.contextmanager
def beating(file: str, every: float) -> Iterator[None]:
    """Changes `file` every so many seconds while the context lasts."""
    stop = threading.Event()

    def beat() -> None:
        while True:
            # A volume may fail for a moment; the next beat comes.
            with contextlib.suppress(OSError):
                _write(file)
            if stop.wait(every):
                return

    _write(file)
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _write(file: str) -> None:
    aside = pathlib.Path(f"{file}.partial")
    aside.write_text(uuid.uuid4().hex)
    aside.replace(file)


def end_with(file: str, silence: float, grace: float = GRACE) -> None:
    """Has this process end as at a preemption once `file` has not changed for `silence` seconds.

    It gets SIGTERM, on which training saves and ends with 143; after `grace` more seconds it ends with 143 regardless.
    """
    threading.Thread(target=_watch, args=(file, silence, grace), name="heartbeat", daemon=True).start()


def _watch(file: str, silence: float, grace: float) -> None:
    seen, last = _read(file), time.monotonic()
    while time.monotonic() - last < silence:
        time.sleep(min(1.0, silence / 4))
        now = _read(file)
        if now != seen and now:
            seen, last = now, time.monotonic()
    log.warning("%s has not changed for %.0f s: the step that started this is gone; ending", file, silence)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(128 + signal.SIGTERM)


def _read(file: str) -> str:
    try:
        return pathlib.Path(file).read_text()
    except OSError:
        return ""
