"""The whole ingest on Beam: stage every unit, find duplicates by key, settle the units, publish everything at once.

Nothing here knows TFX: `marco data ingest` runs it alone (`ingest_to_folder`), the pipeline's executor with its own
Beam pipeline (`ingest`).
"""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apache_beam as beam

from components.example_gen import checks, files, publishing, staging
from components.settings import LOCAL_BEAM_ARGS, IngestOptions
from marco_data import name_tables, overlay, place_reader, progress, shards
from marco_model import errors, store

EXAMPLES, QUARANTINE = "examples", "quarantine"
_STAGING = "staging"
_MEGABYTE = 1_000_000


def ingest(
    paths: Sequence[str],
    examples: str,
    quarantine: str,
    options: IngestOptions | None = None,
    pipeline: beam.Pipeline | None = None,
) -> dict[str, Any]:
    """Reads shards, writes `Split-train` and so on below `examples` and rejected records below `quarantine`.

    Args:
        paths: files, folders or globs of shards, local or `gs://`; each shard is read with its own `sources.csv` and
            `labels-raw.csv` (`name_tables.table_paths`).
        examples: folder of the output, without files; it holds only staged files until everything is done.
        quarantine: folder of the rejected records.
        options: see `IngestOptions`.
        pipeline: the Beam pipeline to run on; the local runner by default.

    Returns:
        The summary: `read`, `written`, `quarantined`, `reasons` (reason → count), `lost` (about how many more
        records the unreadable rests of shards held), `left_out` by the label scheme,
        `left_out_labels` (label → count), `splits` (split → count; `validation` if it has records), `shards`,
        `empty_shards`, `sources` (whether every shard has a sources.csv), and the effect of the overlay (`publishing`).

    Raises:
        InputError: no shards, an unknown split, an invalid sources.csv or overlay, no labels-raw.csv although the label
            scheme needs it, or two that contradict each other although it goes by numbers, or more quarantined than
            `max_quarantined`; in that case the quarantine is written and the examples are not.
        ClusterError: the service of a bucket fails.
    """
    options = options or IngestOptions()
    shard_files = shards.find_shards(paths)
    units = staging.plan_units(shard_files, options)
    answers = overlay.read_overlay(options.overlay) if options.overlay else {}
    overlay.check_labels(answers, options.label_scheme)
    tables = _find_tables(paths, shard_files, answers, options)
    folder = f"{examples}/{_STAGING}"
    files.delete_tree(folder)
    shard_names = tuple(file.name for file in shard_files)
    with errors.expected_errors(), pipeline or beam.Pipeline(argv=list(LOCAL_BEAM_ARGS)) as running:
        (
            running
            | "Units" >> beam.Create(units)
            | "Spread" >> beam.Reshuffle()
            | "Stage" >> beam.ParDo(_Stage(folder, tables, options))
            | "Keys" >> beam.FlatMap(staging.duplicate_keys)
            | "ByKey" >> beam.GroupByKey()
            | "Duplicates" >> beam.FlatMapTuple(lambda key, same: staging.find_duplicates(key, same, shard_names))
            | "Unit" >> beam.WithKeys(lambda duplicate: duplicate.place.unit)
            | "ByUnit" >> beam.GroupByKey()
            | "Settle" >> beam.MapTuple(lambda unit, found: publishing.settle(folder, unit, found, shard_names))
        )
    numbers = [unit.number for unit in units]
    summary = publishing.publish(folder, numbers, examples, quarantine, options.max_quarantined, answers)
    return {**summary, "shards": len(shard_files), "sources": all(each.sources is not None for each in tables.values())}


def _find_tables(
    paths: Sequence[str], shard_files: Sequence[shards.File], answers: checks.Answers, options: IngestOptions
) -> dict[str, checks.Tables]:
    """Reads the tables beside each shard, by its path; those of the raw labels only if the label scheme uses them."""
    places, scheme = [file.path for file in shard_files], options.label_scheme
    raw_labels: Mapping[str, Mapping[int, str] | None] = dict.fromkeys(places)
    if scheme.source == "raw":
        raw_labels = name_tables.find_tables(name_tables.RAW_LABELS_FILE, paths, places)
        if not scheme.goes_by_names:
            name_tables.find_table(name_tables.RAW_LABELS_FILE, paths, places)  # Refuses a number of two names.
    if scheme.goes_by_names and None in raw_labels.values():
        raise errors.InputError(
            f"the label scheme {scheme.name!r} goes by the names of raw labels, and there is no "
            f"{name_tables.RAW_LABELS_FILE} at {paths[0]!r} or beside the shards; put it there, or map the labels by "
            "their numbers"
        )
    sources = name_tables.find_tables(name_tables.SOURCES_FILE, paths, places)
    names = place_reader.NamedPlaces(options.names) if options.names else None
    return {place: checks.Tables(sources[place], raw_labels[place], answers, names) for place in places}


class _Stage(beam.DoFn):
    """`staging.stage` in a Beam worker."""

    def __init__(self, folder: str, tables: Mapping[str, checks.Tables], options: IngestOptions) -> None:
        self._folder, self._tables, self._options = folder, tables, options

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(self._options.threads)

    def process(self, unit: staging.Unit) -> Iterator[staging.StagedRecord]:
        yield from staging.stage(unit, self._folder, self._tables, self._options, self._pool)

    def teardown(self) -> None:
        self._pool.shutdown()


def ingest_to_folder(paths: Sequence[str], output: Path, options: IngestOptions) -> dict[str, Any]:
    """Writes `examples/`, `quarantine/` and `summary.json` below `output`; returns the summary.

    `output` must be new, empty, or the rest of a killed ingest. Raises `InputError` as `ingest` does, and if another
    process writes into `output`.
    """
    shard_files = shards.find_shards(paths)
    if output.exists() and not output.is_dir():
        raise errors.InputError(f"{str(output)!r} is a file; give a new folder")
    examples, quarantine = output / EXAMPLES, output / QUARANTINE
    with store.sole_writer(output), _staging_progress(examples / _STAGING, sum(file.size for file in shard_files)):
        store.require_new_or_empty(output, but=(EXAMPLES, QUARANTINE))
        for folder in (examples, quarantine):
            if folder.exists():
                shutil.rmtree(folder)
        with files.errors_raised_only():
            summary = ingest(paths, str(examples), str(quarantine), options)
        with store.whole_file(output / publishing.SUMMARY_FILE) as file:
            file.write(json.dumps(summary, indent=2) + "\n")
    return summary


@contextlib.contextmanager
def _staging_progress(folder: Path, total: int) -> Iterator[None]:
    """Shows how many of `total` bytes are staged in `folder`, while the pipeline runs in other threads or processes."""
    finished = threading.Event()

    def watch() -> None:
        with progress.progress("checking", max(total // _MEGABYTE, 1), unit="MB") as advance:
            shown, last = 0, False
            while not last:
                last = finished.wait(0.5)
                staged = (total if last else min(_size(folder), total)) // _MEGABYTE
                if staged > shown:
                    advance(staged - shown)
                    shown = staged

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _size(folder: Path) -> int:
    """Returns the bytes of the files below a folder in which files and folders come and go meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(parent, name).stat().st_size
    return total
