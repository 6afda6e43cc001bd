"""Runs on a schedule on Vertex AI: one schedule of a name, whatever was there before."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import pathlib
import re
import time
import zoneinfo
from typing import Any

from components.vertex.api import Api, Refused
from marco_model.errors import ClusterError, InputError

_CONSOLE = "https://console.cloud.google.com/vertex-ai/pipelines"
_DONE = ("SUCCEEDED", "FAILED", "CANCELLED", "SKIPPED", "NOT_TRIGGERED")
_WORDS = {
    "RUNNING": "running",
    "SKIPPED": "unchanged, reused",
    "CANCELLED": "cancelled",
    "NOT_TRIGGERED": "not run",
    "FAILED": "failed",
}


@dataclasses.dataclass(frozen=True)
class Submission:
    """What a run is given beside the package; None and empty: as the package has it."""

    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    pipeline_root: str | None = None
    service_account: str = ""
    network: str = ""
    cache: bool = True


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the package that `marco compile --target vertex` wrote; raises `InputError` for another file."""
    mend = "give the .json file that marco compile --target vertex wrote"
    if not path.is_file():
        raise InputError(f"there is no package {str(path)!r}; {mend}")
    try:
        package = json.loads(path.read_text())
        package["pipelineInfo"]["name"], package["root"]["dag"]["tasks"], package["defaultPipelineRoot"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no pipeline compiled for Vertex AI; {mend}") from error
    return dict(package)


def check_parameters(package: dict[str, Any], given: dict[str, str]) -> None:
    """Raises `InputError` for parameters that the package does not have."""
    known = package["root"].get("inputDefinitions", {}).get("parameters", {})
    if unknown := sorted(set(given) - set(known)):
        raise InputError(f"the package has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}")


def job(package: dict[str, Any], name: str, submission: Submission, labels: dict[str, str] | None = None) -> Any:
    """Returns the message `PipelineJob` of a run."""
    from google.cloud.aiplatform_v1.types import PipelineJob
    from google.protobuf import json_format

    told = json.loads(json.dumps(package))
    if not submission.cache:
        for task in told["root"]["dag"]["tasks"].values():
            task["cachingOptions"] = {"enableCache": False}
    body: dict[str, Any] = {
        "displayName": name,
        "pipelineSpec": told,
        "labels": {"marco-pipeline": label(package["pipelineInfo"]["name"]), **(labels or {})},
        "runtimeConfig": {
            "gcsOutputDirectory": submission.pipeline_root or package["defaultPipelineRoot"],
            "parameterValues": submission.parameters,
        },
        "serviceAccount": submission.service_account,
        "network": submission.network,
    }
    message = PipelineJob()
    json_format.ParseDict({key: value for key, value in body.items() if value}, message._pb)
    return message


def label(text: str) -> str:
    """Returns `text` as a label's value."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def start(api: Api, package: dict[str, Any], name: str, submission: Submission) -> str:
    """Starts a run and returns its id. Where an answer is lost it is not started twice."""
    now = datetime.datetime.now(datetime.timezone.utc)
    identity = f"{label(package['pipelineInfo']['name'])[:40]}-{now:%Y%m%d%H%M%S%f}"
    request = {
        "parent": api.place.parent,
        "pipeline_job": job(package, name, submission),
        "pipeline_job_id": identity,
    }
    api.ensure(lambda: _get(api, identity), lambda: api.act("Pipeline", "create_pipeline_job", request))
    return identity


def _get(api: Api, identity: str) -> Any | None:
    try:
        return api.read("Pipeline", "get_pipeline_job", {"name": f"{api.place.parent}/pipelineJobs/{identity}"})
    except Refused as error:
        if error.status == 404:
            return None
        raise


def follow(api: Api, identity: str) -> None:
    """Returns when a run has succeeded; tells a line as each step begins and ends.

    Raises `ClusterError` where it failed or was cancelled, with the failed steps' messages, `InputError` where there is
    no such run.
    """
    told: dict[str, str] = {}
    while True:
        seen = _get(api, identity)
        if seen is None:
            raise InputError(f"there is no run {identity!r} in {api.place.project}, {api.place.location}; mend its id")
        names = set(seen.pipeline_spec.get("root", {}).get("dag", {}).get("tasks", {}))
        tasks = [one for one in seen.job_detail.task_details if one.task_name in names]
        for task in tasks:
            _tell(api, task, told)
        state = seen.state.name.removeprefix("PIPELINE_STATE_")
        if state in ("SUCCEEDED", "FAILED", "CANCELLED", "PAUSED"):
            break
        time.sleep(api.pace.look)
    if state == "SUCCEEDED":
        return
    failed = [f"{one.task_name}{_message(one.error)}" for one in tasks if one.state.name == "FAILED"]
    what = f"failed at {', '.join(failed)}" if failed else f"ended as {state}"
    raise ClusterError(
        f"run {identity} {what}{_message(seen.error)}; its log is at {_CONSOLE}/locations/{api.place.location}/runs/"
        f"{identity}?project={api.place.project}; mend it and submit again: finished steps are reused"
    )


def _tell(api: Api, task: Any, told: dict[str, str]) -> None:
    state = task.state.name
    if told.get(task.task_name) == state or state not in (*_DONE, "RUNNING"):
        return
    told[task.task_name] = state
    if state == "SUCCEEDED":
        api.show(f"{task.task_name}: done in {(task.end_time - task.start_time).total_seconds():.0f} s")
    else:
        api.show(f"{task.task_name}: {_WORDS[state]}")


def _message(error: Any) -> str:
    text = " ".join(str(error.message).split())[:300] if error else ""
    return f" ({text})" if text else ""


_NOTE = "marco-schedule"
_ZONED = re.compile(r"(?:CRON_)?TZ=(?P<zone>\S+)\s+(?P<rest>.*)")


def read_cron(text: str) -> tuple[str, str]:
    """Returns a cron expression as Vertex AI wants it, five fields, a time zone first where there is one; and in words.

    Raises `InputError` for what is no such expression.
    """
    from cronsim import CronSim, CronSimError

    zoned = _ZONED.fullmatch(text.strip())
    rest, zone = (zoned["rest"], zoned["zone"]) if zoned else (text.strip(), "")
    example = "write minute, hour, day, month and weekday, as in 'TZ=Europe/Berlin 0 3 * * 1' for Mondays at three"
    try:
        if zone:
            zoneinfo.ZoneInfo(zone)
        if len(rest.split()) != 5:
            raise CronSimError(f"{len(rest.split())} fields in the place of five")
        words = CronSim(rest, datetime.datetime(2000, 1, 1)).explain()
    except (CronSimError, zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        said = str(error).strip("'\"")
        raise InputError(f"--cron {text!r}: {said[:1].lower()}{said[1:]}; {example}") from error
    return (f"TZ={zone} " if zone else "") + " ".join(rest.split()), f"{words}, {zone or 'UTC'}"


def ensure(
    api: Api, name: str, cron: str, package: dict[str, Any], submission: Submission, max_concurrency: int = 1
) -> tuple[str, str]:
    """Makes `name` the one schedule of its name and returns its id and what was done: `unchanged`, `made`, `replaced`.

    The new one is made before the old ones go, so that at no moment there is none; where this is interrupted between,
    the next call removes what is too much.
    """
    from google.cloud.aiplatform_v1.types import CreatePipelineJobRequest, Schedule

    wanted = json.dumps([cron, package, vars(submission), max_concurrency], sort_keys=True)
    note = hashlib.sha256(wanted.encode()).hexdigest()[:32]
    before = find(api, name)
    schedule = Schedule(
        display_name=name,
        cron=cron,
        max_concurrent_run_count=max_concurrency,
        create_pipeline_job_request=CreatePipelineJobRequest(
            parent=api.place.parent,
            pipeline_job=job(package, name, submission, {_NOTE: note}),
        ),
    )

    def there() -> Any | None:
        same = [one for one in find(api, name) if _note(one) == note and one.state.name == "ACTIVE"]
        return same[0] if same else None

    request = {"parent": api.place.parent, "schedule": schedule}
    made = api.ensure(there, lambda: api.act("Schedule", "create_schedule", request))
    for other in find(api, name):
        if other.name != made.name:
            _delete(api, other.name)
    identity = made.name.rsplit("/", 1)[1]
    known = {one.name for one in before}
    return identity, "unchanged" if made.name in known else "replaced" if before else "made"


def remove(api: Api, name: str) -> int:
    """Deletes the schedules of this name and returns how many there were."""
    there = find(api, name)
    for one in there:
        _delete(api, one.name)
    return len(there)


def find(api: Api, name: str | None) -> list[Any]:
    """Returns the schedules of the region, all or those of a name."""
    request = {"parent": api.place.parent}
    listed = api.listed("Schedule", "list_schedules", request, "schedules")
    return [one for one in listed if name is None or one.display_name == name]


def _note(schedule: Any) -> str:
    return str(schedule.create_pipeline_job_request.pipeline_job.labels.get(_NOTE, ""))


def _delete(api: Api, schedule: str) -> None:
    """Deletes a schedule, which may be gone already."""

    def gone() -> bool | None:
        try:
            api.read("Schedule", "get_schedule", {"name": schedule})
        except Refused as error:
            if error.status == 404:
                return True
            raise
        return None

    api.ensure(gone, lambda: api.act("Schedule", "delete_schedule", {"name": schedule}))
