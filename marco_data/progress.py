"""One look for all progress: a rich bar on stderr, which turns into plain lines where no terminal is at hand."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(label: str, total: int, unit: str = "images") -> Iterator[Callable[..., None]]:
    """Yields `advance(n=1, earlier=False)`; off a terminal it prints a line every ten seconds.

    Shows done, total and rate, or time left; `earlier` counts what was done before, and not at this rate.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(label, total=total)
            yield lambda n=1, earlier=False: bars.advance(task, n)
        return
    begun = shown = time.monotonic()
    done = before = 0

    def advance(n: int = 1, earlier: bool = False) -> None:
        nonlocal done, before, shown
        done += n
        before += n if earlier else 0
        now = time.monotonic()
        if now - shown >= 10 or done == total:
            shown = now
            rate = (done - before) / max(now - begun, 1e-9)
            print(f"{label}: {done}/{total} {unit}, {rate:.1f}/s", file=sys.stderr, flush=True)

    yield advance
