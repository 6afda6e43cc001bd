"""The steps of earlier runs into the same folder: whether their store can be read, and their outputs are whole.

TFX reuses a step if the folders of its outputs exist. Here the files in them are listed when a step ends, and a step
that has lost one since is run again.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components import mlflow_store
from marco_model import errors, store

log = logging.getLogger(__name__)

STORE, FILES = "metadata.db", "files.json"
"""In a run's folder: the store of ML Metadata; and in its folder of steps: `folder`, where that is, and `outputs`, the
size in bytes of each file by the URI of an output and the path below it."""
_FIX = "delete it to run all steps again; training goes on from its checkpoints, and published models stay"


def check_store(output: Path) -> None:
    """Raises `InputError` if the store of ML Metadata in a run's folder is damaged or locked."""
    if (file := output / STORE).is_file():
        mlflow_store.check_database(file, _FIX)


def forget_incomplete(steps: Path, connection: Any) -> None:
    """Lets TFX run those steps again whose outputs have lost or changed a file, and all steps of a moved folder.

    `steps`: the folder of all steps' outputs. `connection`: to the store, as `metadata.Metadata` takes it. Raises
    `InputError` if the store cannot be opened.
    """
    from tfx.orchestration.local.local_dag_runner import metadata

    facts = _read(steps)
    moved = facts["folder"] != str(steps)
    lost = {uri: "" if moved else _lost(uri, files) for uri, files in facts["outputs"].items()}
    gone = [uri for uri in lost if moved or lost[uri]]
    message = f"{steps.parent / STORE} cannot be used ({{}}); {_FIX}"
    with errors.translated(errors.InputError, message, Exception), metadata.Metadata(connection) as handle:
        for uri in gone:
            _forget(handle.store, uri)
    if moved:
        log.warning("the steps were run in %s and are run again here, since they name that folder", facts["folder"])
    for uri in gone:
        if lost[uri]:
            log.warning("%s has lost or changed %s: the step is run again", Path(uri).relative_to(steps), lost[uri])
        del facts["outputs"][uri]
    if gone:
        _write(steps, facts)


def record(steps: Path, uris: Iterable[str]) -> None:
    """Lists the files of a step's outputs."""
    facts = _read(steps)
    facts["outputs"] |= {uri: _sizes(uri) for uri in uris}
    _write(steps, facts)


def _read(steps: Path) -> dict[str, Any]:
    return store.read_json(str(steps / FILES)) or {"folder": str(steps), "outputs": {}}


def _write(steps: Path, facts: dict[str, Any]) -> None:
    store.write_bytes(str(steps / FILES), json.dumps(facts | {"folder": str(steps)}, indent=1).encode())


def _sizes(uri: str) -> dict[str, int]:
    folder = Path(uri)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _lost(uri: str, files: dict[str, int]) -> str:
    """Returns the first file that is missing or has another size; empty if there is none."""
    sizes = _sizes(uri)
    return next((name for name, size in files.items() if sizes.get(name) != size), "")


def _forget(metadata_store: Any, uri: str) -> None:
    """Marks the executions that gave this output as failed, so that TFX does not reuse them."""
    artifacts = [artifact.id for artifact in metadata_store.get_artifacts_by_uri(uri)]
    events = metadata_store.get_events_by_artifact_ids(artifacts)
    executions = metadata_store.get_executions_by_id(
        sorted({event.execution_id for event in events if event.type in (event.OUTPUT, event.PENDING_OUTPUT)})
    )
    for execution in executions:
        execution.last_known_state = execution.FAILED
    metadata_store.put_executions(executions)
