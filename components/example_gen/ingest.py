"""The whole ingest on Beam: stage every unit, find duplicates by key, settle, then publish in one go.

Nothing here knows TFX: `marco data ingest` runs it alone, the pipeline's executor with its own Beam pipeline.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apache_beam as beam

from components.example_gen import files
from components.example_gen.checks import Names
from components.example_gen.publishing import SUMMARY_FILE, publish, settle
from components.example_gen.staging import Loser, Staged, Unit, foremost, keys, losers, plan_units, stage
from components.settings import LOCAL_BEAM_ARGS, IngestOptions
from marco_data.name_tables import RAW_LABELS_FILE as LABELS_RAW
from marco_data.name_tables import find_raw_labels, find_sources
from marco_data.overlay import check_labels, read_overlay
from marco_data.progress import progress
from marco_data.shards import File, find_shards
from marco_model.errors import InputError, expected_errors


def ingest(
    paths: Sequence[str],
    examples: str,
    quarantine: str,
    options: IngestOptions | None = None,
    make_pipeline: Callable[[], beam.Pipeline] | None = None,
) -> dict[str, Any]:
    """Reads shards, writes `Split-train`, `Split-eval` below `examples` and what failed below `quarantine`.

    Args:
        paths: files, folders or globs of shards, local or `gs://`; `sources.csv` and `labels-raw.csv` are looked for
            in the folders given, the shards' own and those above them.
        examples: folder of the output, without files; it holds nothing until all is done.
        quarantine: folder of what failed.
        options: see `IngestOptions`.
        make_pipeline: returns the Beam pipeline to run on; the local runner by default.

    Returns:
        The summary: `read`, `written`, `quarantined`, `reasons` (reason → count), `left_out` by the label scheme,
        `left_out_labels` (label → count), `splits` (split → count), `shards`, `empty_shards`, `sources` (whether a
        sources.csv was found), and what the overlay did (`OverlayTrace.counts`).

    Raises:
        InputError: no shards, an unknown split, a broken sources.csv or overlay, no labels-raw.csv where the label
            scheme needs it, or more quarantined than `max_quarantined`; in that case the quarantine is there and the
            examples are not.
        ClusterError: the service of a bucket fails.
    """
    options = options or IngestOptions()
    shards = find_shards(paths)
    units = plan_units(shards, options)
    names = _names(paths, shards, options)
    staging = files.join(examples, "staging")
    files.delete_tree(staging)
    shard_names = tuple(file.name for file in shards)
    pipeline = make_pipeline() if make_pipeline else beam.Pipeline(argv=list(LOCAL_BEAM_ARGS))
    with expected_errors(), pipeline:
        (
            pipeline
            | "Units" >> beam.Create(units)
            | "Spread" >> beam.Reshuffle()
            | "Stage" >> beam.ParDo(_Stage(staging, names, options))
            | "Keys" >> beam.FlatMap(keys)
            | "ByKey" >> beam.GroupByKey()
            | "Losers" >> beam.FlatMap(_losers_by_unit, shard_names)
            | "ByUnit" >> beam.GroupByKey()
            | "Settle" >> beam.Map(_settle_unit, staging, shard_names)
        )
    numbers = [unit.number for unit in units]
    summary = publish(staging, numbers, examples, quarantine, options.max_quarantined, names.overlay)
    return {**summary, "shards": len(shards), "sources": names.sources is not None}


def _names(paths: Sequence[str], shards: Sequence[File], options: IngestOptions) -> Names:
    """Finds the tables beside the shards; that of the raw labels only where the label scheme asks for them."""
    files = [file.path for file in shards]
    raw_labels = find_raw_labels(paths, files) if options.label_scheme.source == "raw" else None
    if raw_labels is None and options.label_scheme.goes_by_names:
        raise InputError(
            f"the label scheme {options.label_scheme.name!r} goes by the names of raw labels, and there is no "
            f"{LABELS_RAW} at {paths[0]!r} or beside the shards; put it there, or map the labels by their numbers"
        )
    overlay = read_overlay(options.overlay) if options.overlay else {}
    check_labels(overlay, options.label_scheme)
    return Names(find_sources(paths, files), raw_labels, overlay)


class _Stage(beam.DoFn):
    """`stage` in a Beam worker."""

    def __init__(self, staging: str, names: Names, options: IngestOptions) -> None:
        self._staging = staging
        self._names = names
        self._options = options

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(self._options.threads)

    def process(self, unit: Unit) -> Iterator[Staged]:
        """Stages a unit."""
        yield from stage(unit, self._staging, self._names, self._options, self._pool)

    def teardown(self) -> None:
        self._pool.shutdown()


def _losers_by_unit(group: tuple[bytes, Iterable[Staged]], names: Sequence[str]) -> Iterator[tuple[int, Loser]]:
    for loser in losers(*group, names):
        yield loser.place.unit, loser


def _settle_unit(group: tuple[int, Iterable[Loser]], staging: str, names: Sequence[str]) -> None:
    unit, found = group
    settle(staging, unit, foremost(found), names)


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
