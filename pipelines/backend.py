"""Submit, follow and schedule a compiled package: what Kubeflow Pipelines and Vertex AI have in common.

`kubeflow_backend` and `vertex_backend` implement `Backend`; the commands `marco submit` and `marco schedule` use it.
"""

import dataclasses
import datetime
import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from marco_model.errors import ClusterError, InputError, one_line, refuse_credentials, translated

_ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "CANCELLED", "SKIPPED", "PAUSED"}
_WORDS = {
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "SKIPPED": "unchanged, reused",
    "CANCELED": "cancelled",
    "CANCELLED": "cancelled",
    "NOT_TRIGGERED": "not run",
    "FAILED": "failed",
}


class RunFailedError(ClusterError):
    """A step of the run failed; the message names it."""

    exit_status = 1


@dataclasses.dataclass(frozen=True)
class Package:
    """A compiled pipeline: its file, name, version (a hash of the content), parameters, steps and content."""

    path: Path
    name: str
    version: str
    parameters: frozenset[str]
    steps: tuple[str, ...]
    spec: dict[str, Any]

    def check_parameters(self, parameters: dict[str, str]) -> None:
        """Raises `InputError` for parameters that the package does not have."""
        if unknown := sorted(set(parameters) - self.parameters):
            known = ", ".join(sorted(self.parameters)) or "none"
            raise InputError(f"the package has no parameter {', '.join(unknown)}; it has {known}")


@dataclasses.dataclass(frozen=True)
class Submission:
    """What a run or schedule gets beside the package. None and empty values leave the package's own."""

    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    pipeline_root: str | None = None
    service_account: str | None = None
    cache: bool = True


@dataclasses.dataclass(frozen=True)
class Plan:
    """A schedule to make: its name, a cron expression of the service, and what each run gets."""

    name: str
    cron: str
    package: Package
    submission: Submission
    max_concurrency: int


class StepStatus(NamedTuple):
    """A step of a run; `seconds` once it has ended, `message` where it failed."""

    name: str
    state: str
    seconds: float | None = None
    message: str = ""


class RunStatus(NamedTuple):
    """A run at one moment."""

    state: str
    steps: list[StepStatus]
    message: str = ""


class ScheduleStatus(NamedTuple):
    """A schedule; `state` is `on`, `off` or the service's own word, `note` what `Backend.schedule_note` returned."""

    identity: str
    name: str
    cron: str
    state: str
    note: str


class Backend(Protocol):
    """A service that runs compiled packages.

    `options`: what a `marco` command needs to reach it. `cron_fields`: the fields of its cron expressions, with an
    example. `schedule_noun`: the service's name for a schedule. `poll`: seconds between two looks at a run.
    `patience`: seconds for which looks may fail before following ends.

    Methods raise `InputError` where the service refuses and `ClusterError` where it fails.
    """

    options: str
    cron_fields: str
    schedule_noun: str
    poll: float
    patience: float

    def read_package(self, path: Path) -> Package:
        """Reads what `marco compile` wrote for this service; raises `InputError` for another file."""

    def read_cron(self, text: str) -> tuple[str, str]:
        """Returns a cron expression as the service takes it, and in words; raises `InputError` for another text."""

    def upload(self, package: Package) -> str:
        """Makes the package known to the service, once for each content; returns a sentence, or nothing."""

    def start(self, package: Package, name: str | None, submission: Submission) -> str:
        """Starts a run and returns its id."""

    def run_status(self, run: str, steps: tuple[str, ...]) -> RunStatus:
        """Returns a run as it is now; `steps` are the package's, empty where they are unknown."""

    def log_link(self, run: str) -> str:
        """Returns the address of a run's page."""

    def schedules(self) -> list[ScheduleStatus]:
        """Returns all schedules."""

    def schedule_note(self, plan: Plan) -> str:
        """Returns a text that differs for plans that make different runs; the service keeps it with the schedule."""

    def create_schedule(self, plan: Plan, note: str) -> str:
        """Makes a schedule and returns its id."""

    def delete_schedule(self, identity: str) -> None:
        """Deletes a schedule."""


def read_package(path: Path, parse: Callable[[bytes], Any], kind: str, fix: str) -> Package:
    """Reads a compiled package; raises `InputError` for another file, or for one that holds credentials.

    `parse` returns its specification or raises a `ValueError`. `kind` and `fix` complete the message.
    """
    if not path.is_file():
        raise InputError(f"there is no package {str(path)!r}; {fix}")
    content = path.read_bytes()
    refuse_credentials(content.decode(errors="replace"), str(path))
    with translated(InputError, f"{path} is not a {kind}; {fix}", ValueError, KeyError, TypeError, AttributeError):
        spec = parse(content)
        return Package(
            path=path,
            name=spec["pipelineInfo"]["name"],
            version=hashlib.sha256(content).hexdigest()[:16],
            parameters=frozenset(spec["root"].get("inputDefinitions", {}).get("parameters", {})),
            steps=tuple(spec["root"]["dag"]["tasks"]),
            spec=spec,
        )


def ensure_schedule(backend: Backend, plan: Plan) -> tuple[str, str]:
    """Makes `plan` the only schedule of its name; returns its id and `unchanged`, `made` or `replaced`.

    The new schedule is made before the old ones are deleted, so that one exists at every moment. If this is interrupted
    in between, the next call deletes the others.
    """
    note = backend.schedule_note(plan)
    existing = _named(backend, plan.name)
    current = next((schedule.identity for schedule in existing if schedule.note == note and schedule.state == "on"), "")
    identity = current or backend.create_schedule(plan, note)
    for schedule in _named(backend, plan.name):
        if schedule.identity != identity:
            backend.delete_schedule(schedule.identity)
    return identity, "unchanged" if current else "replaced" if existing else "made"


def remove_schedules(backend: Backend, name: str) -> int:
    """Deletes the schedules of this name and returns how many there were."""
    schedules = _named(backend, name)
    for schedule in schedules:
        backend.delete_schedule(schedule.identity)
    return len(schedules)


def _named(backend: Backend, name: str) -> list[ScheduleStatus]:
    return [schedule for schedule in backend.schedules() if schedule.name == name]


def explain_cron(text: str, expression: str, fields: int, advice: str) -> str:
    """Returns a cron expression in words.

    `text`: the value of `--cron`. `fields`: how many the service takes. Raises `InputError` with `advice` otherwise.
    """
    from cronsim import CronSim, CronSimError

    try:
        if (count := len(expression.split())) != fields:
            raise CronSimError(f"wrong number of fields, {count} instead of {fields}")
        return CronSim(expression, datetime.datetime(2000, 1, 1)).explain()
    except CronSimError as error:
        raise wrong_cron(text, str(error), advice) from error


def wrong_cron(text: str, problem: str, advice: str) -> InputError:
    """Returns the error for a cron expression that the service does not take."""
    return InputError(f"--cron {text!r}: {problem[:1].lower()}{problem[1:]}; {advice}")


def follow(backend: Backend, run: str, steps: tuple[str, ...] = ()) -> None:
    """Prints one line on stderr as each step begins and ends; returns when the run has succeeded.

    `steps`: the package's; where empty, all steps that the service names.

    Raises:
        RunFailedError: the run failed, with the failed steps' messages.
        ClusterError: the run was cancelled, or the service fails.
        InputError: the service refuses, as it does once a token has expired, or has no such run.
    """
    shown: dict[str, str] = {}
    still_runs = f"the run goes on: marco submit{backend.options} --follow {run}"
    answered, known = time.monotonic(), False
    while True:
        try:
            status = backend.run_status(run, steps)
        except ClusterError as error:
            if time.monotonic() - answered >= backend.patience:
                raise ClusterError(f"{error}; {still_runs}") from error
            time.sleep(backend.poll)
            continue
        except InputError as error:
            raise InputError(f"{error}; {still_runs}") if known else error from error
        answered, known = time.monotonic(), True
        for step in status.steps:
            _show(step, shown)
        if status.state in _ENDED:
            break
        time.sleep(backend.poll)
    if status.state == "SUCCEEDED":
        return
    failed = [f"{step.name}{in_brackets(step.message)}" for step in status.steps if step.state == "FAILED"]
    outcome = f"failed at {', '.join(failed)}" if failed else f"ended as {status.state}"
    kind = RunFailedError if status.state == "FAILED" else ClusterError
    raise kind(
        f"run {run} {outcome}{in_brackets(status.message)}; its log is at {backend.log_link(run)}; fix it and submit "
        "again: finished steps are reused"
    )


def _show(step: StepStatus, shown: dict[str, str]) -> None:
    if shown.get(step.name) == step.state or step.state not in _WORDS:
        return
    shown[step.name] = step.state
    duration = f" in {step.seconds:.0f} s" if step.state == "SUCCEEDED" and step.seconds is not None else ""
    print(f"{step.name}: {_WORDS[step.state]}{duration}", file=sys.stderr, flush=True)


def in_brackets(message: str) -> str:
    """Returns a message in one line and in brackets after a space; nothing for an empty one."""
    return f" ({one_line(message, 300)})" if message.strip() else ""
