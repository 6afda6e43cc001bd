"""The whole ingest on Beam: stage every unit, find duplicates by key, settle, then publish in one go.

Nothing here knows TFX: `marco data ingest` runs it alone, the pipeline's executor with its own Beam pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam

from components.example_gen import files
from components.example_gen.duplicates import Loser, foremost, keys, losers
from components.example_gen.options import LOCAL_BEAM_ARGS, IngestOptions
from components.example_gen.publishing import publish
from components.example_gen.settling import settle
from components.example_gen.staging import Staged, Unit, plan_units, stage
from marco_data.shards import find_shards
from marco_data.sources import find_sources


def ingest(
    paths: Sequence[str],
    examples: str,
    quarantine: str,
    options: IngestOptions | None = None,
    make_pipeline: Callable[[], beam.Pipeline] | None = None,
) -> dict[str, Any]:
    """Reads shards, writes `Split-train`, `Split-eval` below `examples` and what failed below `quarantine`.

    Args:
        paths: files, folders or globs of shards, local or `gs://`; a `sources.csv` is looked for in the folders given,
            the shards' own and those above them.
        examples: folder of the output, without files; it holds nothing until all is done.
        quarantine: folder of what failed.
        options: see `IngestOptions`.
        make_pipeline: returns the Beam pipeline to run on; the local runner by default.

    Returns:
        The summary: `read`, `written`, `quarantined`, `reasons` (reason → count), `splits` (split → count),
        `shards`, `empty_shards`, `sources` (whether a sources.csv was found).

    Raises:
        InputError: no shards, an unknown split, a broken sources.csv, or more quarantined than `max_quarantined`; in
            that case the quarantine is there and the examples are not.
    """
    options = options or IngestOptions()
    shards = find_shards(paths)
    units = plan_units(shards, options)
    sources = find_sources(paths, (file.path for file in shards))
    staging = files.join(examples, "staging")
    files.delete_tree(staging)
    names = tuple(file.name for file in shards)
    pipeline = make_pipeline() if make_pipeline else beam.Pipeline(argv=list(LOCAL_BEAM_ARGS))
    with pipeline:
        (
            pipeline
            | "Units" >> beam.Create(units)
            | "Spread" >> beam.Reshuffle()
            | "Stage" >> beam.ParDo(_Stage(staging, sources, options))
            | "Keys" >> beam.FlatMap(keys)
            | "ByKey" >> beam.GroupByKey()
            | "Losers" >> beam.FlatMap(_losers_by_unit, names)
            | "ByUnit" >> beam.GroupByKey()
            | "Settle" >> beam.Map(_settle_unit, staging, names)
        )
    summary = publish(staging, [unit.number for unit in units], examples, quarantine, options.max_quarantined)
    return {**summary, "shards": len(shards), "sources": sources is not None}


class _Stage(beam.DoFn):
    """`stage` in a Beam worker."""

    def __init__(self, staging: str, sources: Mapping[int, str] | None, options: IngestOptions) -> None:
        self._staging = staging
        self._sources = sources
        self._options = options

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(self._options.threads)

    def process(self, unit: Unit) -> Iterator[Staged]:
        """Stages a unit."""
        yield from stage(unit, self._staging, self._sources, self._options, self._pool)

    def teardown(self) -> None:
        self._pool.shutdown()


def _losers_by_unit(group: tuple[bytes, Iterable[Staged]], names: Sequence[str]) -> Iterator[tuple[int, Loser]]:
    for loser in losers(*group, names):
        yield loser.place.unit, loser


def _settle_unit(group: tuple[int, Iterable[Loser]], staging: str, names: Sequence[str]) -> None:
    unit, found = group
    settle(staging, unit, foremost(found), names)
