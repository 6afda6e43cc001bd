"""Follows a run on Kubeflow Pipelines to its end, a line as each step begins and ends."""

from __future__ import annotations

import sys
import time
from typing import Any

from marco_model.errors import ClusterError, InputError
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

    Raises `ClusterError` where the run failed or was cancelled, with the failed steps' messages, or Kubeflow fails,
    `InputError` where it refuses, as it does once a token has expired.
    """
    told: dict[str, str] = {}
    goes_on = f"the run goes on: marco submit --follow {run}"
    heard, there = time.monotonic(), False
    while True:
        try:
            with reaching("Kubeflow Pipelines"):
                seen = client.get_run(run)
        except ClusterError as error:
            if time.monotonic() - heard > patience:
                raise ClusterError(f"{error}; {goes_on}") from error
            time.sleep(poll)
            continue
        except InputError as error:
            if there:
                raise InputError(f"{error}; {goes_on}") from error
            raise
        heard, there = time.monotonic(), True
        every = _tasks(seen)
        names = {task.display_name for task in every}
        tasks = [task for task in every if _is_step(task.display_name, steps, names)]
        for task in tasks:
            _tell(task, "SKIPPED" if _is_reused(task, every) else task.state or "PENDING", told)
        if seen.state in _DONE:
            _end(client, run, seen, tasks)
            return
        time.sleep(poll)


def _tasks(run: Any) -> list[Any]:
    details = run.run_details
    return list(details.task_details or []) if details else []


def _is_step(name: str, steps: tuple[str, ...], names: set[str]) -> bool:
    """Tells steps from what Kubeflow adds: the whole, a driver beside each step, executors in it and their retries."""
    if steps:
        return name in steps
    return name != "root" and f"{name}-driver" in names


def _is_reused(task: Any, every: list[Any]) -> bool:
    """Says whether the step succeeded without its executor: so Kubeflow tells of a cache hit.

    A step names its children by the ids of Argo's nodes, and these tell of themselves by the names of pods; both end
    in the same number. Source: `NodeStatuses` and `toModelTask` in the API server of Kubeflow Pipelines, and the `When`
    of its compiler's `addContainerExecutorTemplate`.
    """
    children = {_number(child.pod_name) for child in task.child_tasks or [] if child.pod_name}
    return task.state == "SUCCEEDED" and any(
        other.display_name == "executor" and other.state == "SKIPPED" and _number(other.pod_name) in children
        for other in every
    )


def _number(name: str | None) -> str:
    return (name or "").rpartition("-")[2]


def _tell(task: Any, state: str, told: dict[str, str]) -> None:
    if told.get(task.display_name) == state or state not in _DONE | {"RUNNING"}:
        return
    told[task.display_name] = state
    words = {"RUNNING": "running", "SUCCEEDED": "done", "SKIPPED": "unchanged, reused", "CANCELED": "cancelled"}
    text = words.get(state, "failed")
    if state == "SUCCEEDED" and task.start_time and task.end_time:
        text = f"done in {(task.end_time - task.start_time).total_seconds():.0f} s"
    print(f"{task.display_name}: {text}", file=sys.stderr, flush=True)


def _end(client: Any, run: str, seen: Any, tasks: list[Any]) -> None:
    if seen.state == "SUCCEEDED":
        return
    failed = [f"{task.display_name}{_message(task)}" for task in tasks if task.state == "FAILED"]
    what = f"failed at {', '.join(failed)}" if failed else f"ended as {seen.state}"
    raise ClusterError(
        f"run {run} {what}{_message(seen)}; its log is at {client._get_url_prefix()}/#/runs/details/{run}; mend it and "
        "submit again: finished steps are reused"
    )


def _message(told: Any) -> str:
    """Returns the error of a run or step in brackets, or nothing: most versions of Kubeflow Pipelines tell of none."""
    errors = [told.error, *(past.error for past in reversed(told.state_history or []))]
    message = next((error.message for error in errors if error and error.message), "")
    return f" ({' '.join(message.split())[:300]})" if message else ""
