"""The ingest without a pipeline: into a folder on this machine, with progress."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from components.example_gen.ingest import ingest
from components.example_gen.options import LOCAL_BEAM_ARGS, IngestOptions
from components.example_gen.publishing import SUMMARY_FILE
from marco_data.progress import progress
from marco_data.shards import find_shards
from marco_model.errors import InputError

EXAMPLES = "examples"
QUARANTINE = "quarantine"
_MEGABYTE = 1_000_000


def ingest_to_folder(
    paths: Sequence[str], output: Path, options: IngestOptions, beam_args: Sequence[str] = LOCAL_BEAM_ARGS
) -> dict[str, Any]:
    """Writes `examples/`, `quarantine/` and `summary.json` below `output`; returns the summary.

    `output` must be new, empty, or what a killed ingest left. Raises `InputError` as `ingest` does.
    """
    shards = find_shards(paths)
    _make_room(output)
    examples = output / EXAMPLES
    with _shown(examples, sum(file.size for file in shards)):
        summary = ingest(
            paths, str(examples), str(output / QUARANTINE), options, lambda: beam.Pipeline(argv=list(beam_args))
        )
    aside = output / f"{SUMMARY_FILE}.part"
    aside.write_text(json.dumps(summary, indent=2) + "\n")
    aside.rename(output / SUMMARY_FILE)
    return summary


def _make_room(output: Path) -> None:
    held = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if output.exists() and (not output.is_dir() or held - {EXAMPLES, QUARANTINE}):
        raise InputError(f"{str(output)!r} is not empty; give a new folder, or remove what it holds")
    output.mkdir(parents=True, exist_ok=True)
    for name in held:
        shutil.rmtree(output / name)


@contextlib.contextmanager
def _shown(examples: Path, total: int) -> Iterator[None]:
    """Shows how much is staged, while the pipeline runs in other threads or processes."""
    over = threading.Event()

    def watch() -> None:
        with progress("checking", max(total // _MEGABYTE, 1), unit="MB") as advance:
            shown = 0
            finished = False
            while not finished:
                finished = over.wait(0.5)
                staged = total if finished else min(_size(examples / "staging"), total)
                if staged // _MEGABYTE > shown:
                    advance(staged // _MEGABYTE - shown)
                    shown = staged // _MEGABYTE

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total
