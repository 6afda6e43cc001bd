"""Progress of long work on stderr: a bar on a terminal, otherwise plain lines."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(label: str, total: int, unit: str = "images", visible: bool = True) -> Iterator[Callable[..., None]]:
    """Yields `advance(n=1, earlier=False)`, which counts `n` of `total`; off a terminal it prints a line every 10 s.

    A bar shows the time left, a line the rate. `earlier` counts work of an earlier run, which does not enter the rate.
    Without `visible` there is no output.
    """
    if not visible:
        yield lambda n=1, earlier=False: None
        return
    if sys.stderr.isatty():
        import rich.progress

        columns = (
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn(unit),
            rich.progress.TimeRemainingColumn(),
        )
        with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True)) as bars:
            task = bars.add_task(label, total=total)
            yield lambda n=1, earlier=False: bars.advance(task, n)
        return
    start = shown = time.monotonic()
    done = before = 0

    def advance(n: int = 1, earlier: bool = False) -> None:
        nonlocal done, before, shown
        done += n
        before += n if earlier else 0
        now = time.monotonic()
        if now - shown >= 10 or done == total:
            shown = now
            rate = (done - before) / max(now - start, 1e-9)
            speed = f"{rate:.1f}/s" if rate >= 0.1 or not rate else f"{1 / rate:.0f} s each"
            print(f"{label}: {done}/{total} {unit}, {speed}", file=sys.stderr, flush=True)

    yield advance
