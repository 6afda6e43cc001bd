"""Runs on a schedule on Vertex AI: one schedule of a name, whatever was there before."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import zoneinfo
from typing import Any

from components.vertex.api import Api, Refused
from marco_model.errors import InputError
from pipelines import vertex_submission
from pipelines.vertex_submission import Submission

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
            pipeline_job=vertex_submission.job(package, name, submission, {_NOTE: note}),
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
