"""What the last run of a local pipeline did, read from its ML Metadata store."""

from __future__ import annotations

import dataclasses
import pathlib

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as pb


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a run: whether its outputs were reused, its seconds, and the URI of each output by channel name."""

    name: str
    reused: bool
    seconds: float
    outputs: dict[str, str]


def last_run(database: pathlib.Path, pipeline: str) -> dict[str, Step]:
    """Returns the steps of the newest run, by name in the order they began. `database`: the SQLite store."""
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    config.sqlite.connection_mode = pb.SqliteMetadataSourceConfig.READONLY
    store = metadata_store.MetadataStore(config)
    runs = [run for run in store.get_contexts_by_type("pipeline_run") if _of_pipeline(store, run, pipeline)]
    if not runs:
        return {}
    newest = max(runs, key=lambda run: run.create_time_since_epoch)
    executions = sorted(store.get_executions_by_context(newest.id), key=lambda one: one.create_time_since_epoch)
    steps = (_step(store, execution, pipeline) for execution in executions)
    return {step.name: step for step in steps}


def _of_pipeline(store: metadata_store.MetadataStore, run: pb.Context, pipeline: str) -> bool:
    return any(parent.name == pipeline for parent in store.get_parent_contexts_by_context(run.id))


def _step(store: metadata_store.MetadataStore, execution: pb.Execution, pipeline: str) -> Step:
    nodes = [one.name for one in store.get_contexts_by_execution(execution.id) if one.type == "node"]
    milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
    return Step(
        name=nodes[0].removeprefix(f"{pipeline}."),
        reused=execution.last_known_state == pb.Execution.CACHED,
        seconds=milliseconds / 1_000,
        outputs=_outputs(store, execution.id),
    )


def _outputs(store: metadata_store.MetadataStore, execution: int) -> dict[str, str]:
    produced = [e for e in store.get_events_by_execution_ids([execution]) if e.type == pb.Event.OUTPUT]
    uris = {artifact.id: artifact.uri for artifact in store.get_artifacts_by_id([e.artifact_id for e in produced])}
    return {event.path.steps[0].key: uris[event.artifact_id] for event in produced}
