"""One look for all progress: a rich bar on stderr, which turns into plain lines where no terminal is at hand."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(label: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`; shows done, total, rate and time left. Off a terminal it prints a line every ten seconds."""
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
            yield lambda n=1: bars.advance(task, n)
        return
    begun = shown = time.monotonic()
    done = 0

    def advance(n: int = 1) -> None:
        nonlocal done, shown
        done += n
        now = time.monotonic()
        if now - shown >= 10 or done == total:
            shown = now
            print(f"{label}: {done}/{total} {unit}, {done / max(now - begun, 1e-9):.1f}/s", file=sys.stderr, flush=True)

    yield advance
