"""Follows a run on Kubeflow Pipelines to its end, a line as each step begins and ends."""

from __future__ import annotations

import sys
import time
from typing import Any

from marco_model.errors import ClusterError
from pipelines.kubeflow_client import reaching

_POLL_SECONDS = 5.0
_PATIENCE_SECONDS = 300.0
_DONE = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


def follow(
    client: Any, run: str, steps: tuple[str, ...] = (), poll: float = _POLL_SECONDS, patience: float = _PATIENCE_SECONDS
) -> None:
    """Returns when the run has succeeded.

    `steps`: names to tell of; where empty, all but those that Kubeflow itself adds. `poll`: seconds between two looks.
    `patience`: for how many seconds Kubeflow may fail to answer before it is given up.

    Raises `ClusterError` where the run failed or was cancelled, with the failed steps' messages, or Kubeflow fails.
    """
    told: dict[str, str] = {}
    heard = time.monotonic()
    while True:
        try:
            with reaching("Kubeflow Pipelines"):
                seen = client.get_run(run)
        except ClusterError as error:
            if time.monotonic() - heard > patience:
                raise ClusterError(f"{error}; the run goes on: marco submit --follow {run}") from error
            time.sleep(poll)
            continue
        heard = time.monotonic()
        tasks = [task for task in _tasks(seen) if _is_step(task.display_name, steps)]
        for task in tasks:
            _tell(task, told)
        if seen.state in _DONE:
            _end(run, seen, tasks)
            return
        time.sleep(poll)


def _tasks(run: Any) -> list[Any]:
    details = run.run_details
    return list(details.task_details or []) if details else []


def _is_step(name: str, steps: tuple[str, ...]) -> bool:
    if steps:
        return name in steps
    return name not in ("root", "executor") and not name.endswith(("-driver", "-executor"))


def _tell(task: Any, told: dict[str, str]) -> None:
    state = task.state or "PENDING"
    if told.get(task.display_name) == state or state not in _DONE | {"RUNNING"}:
        return
    told[task.display_name] = state
    words = {"RUNNING": "running", "SUCCEEDED": "done", "SKIPPED": "unchanged, reused", "CANCELED": "cancelled"}
    text = words.get(state, "failed")
    if state == "SUCCEEDED" and task.start_time and task.end_time:
        text = f"done in {(task.end_time - task.start_time).total_seconds():.0f} s"
    print(f"{task.display_name}: {text}", file=sys.stderr, flush=True)


def _end(run: str, seen: Any, tasks: list[Any]) -> None:
    if seen.state == "SUCCEEDED":
        return
    failed = [f"{task.display_name} ({_message(task)})" for task in tasks if task.state == "FAILED"]
    what = f"failed at {', '.join(failed)}" if failed else f"ended as {seen.state}: {_message(seen)}"
    raise ClusterError(f"run {run} {what}; see its log, mend it and submit again: finished steps are reused")


def _message(told: Any) -> str:
    message = told.error.message if told.error else ""
    return " ".join((message or "no message").split())[:300]
